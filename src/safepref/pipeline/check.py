"""The data doctor on a file or a named set (`safepref data check`), and on all that a run will use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safepref.data.checks import repeated_prompts
from safepref.data.doctor import check_examples, check_file, check_pairs, check_source
from safepref.data.findings import Finding
from safepref.data.limits import Limits
from safepref.data.readers import read_prompts
from safepref.data.records import Example, Pair, Split
from safepref.data.rows import Where
from safepref.data.sources import source_file
from safepref.errors import InputError
from safepref.generation.base import PROMPT_LIMIT
from safepref.pipeline.prompts import Prompts, Suite
from safepref.recipe import Recipe, TrainingSection, as_names
from safepref.tasks import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_data(source: str, *, model: str | None = None, against: Sequence[Path] = ()) -> list[Finding]:
    """Everything that the doctor finds.

    Args:
        source: a file of pairs or prompts, a named set, or NAME:FILE for a file in the columns of a set.
        model: with it, the rows are also checked as its tokenizer writes them: BOS and end-of-turn counts,
            the boundary of prompt and answer, and what training would cut.
        against: files of evaluation prompts; a row whose request or template stands in one is an error.

    Raises:
        InputError: a file, set or tokenizer that cannot be read.
    """
    # Rows of every label count: none of them may be trained on.
    evaluation = [prompt for file in against for prompt in read_prompts(file, "general")]
    tokenizer = _tokenizer(model) if model is not None else None
    half = TrainingSection().max_length // 2
    limits = Limits(max_prompt=half, max_completion=half)
    if Path(source).is_file():
        return check_file(source, tokenizer, evaluation=evaluation, limits=limits)
    named, path = source_file(source)
    return check_source(named, path, tokenizer, evaluation=evaluation, limits=limits)


def check_run(
    recipe: Recipe,
    prompts: Prompts,
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    folder: Path,
) -> list[Finding]:
    """Everything that the doctor finds in what a run trains and evaluates on, errors first.

    Args:
        recipe: names the user's files of prompts, each of which is checked row by row.
        prompts: what evaluation asks; choose and report are held against each other.
        pairs: `(N,)` what is trained on, each held against the evaluation.
        examples: `(M,)` the anchor.
        tokenizer: the policy's.
        limits: what training cuts.
        folder: where the run keeps pairs.jsonl and examples.jsonl, for the findings' places.
    """
    shared: dict[str, Any] = {
        "evaluation": prompts.evaluation,
        "limits": limits,
        "system": recipe.model.system,
    }
    findings = check_pairs(pairs, tokenizer, file=str(folder / "pairs.jsonl"), **shared)
    findings += check_examples(examples, tokenizer, file=str(folder / "examples.jsonl"), **shared)
    asked, data = recipe.evaluation, recipe.data
    taught = {name for value in (data.harmless_prompts, data.general_prompts) for name in as_names(value)}
    also = [asked.benign, asked.toxicity, asked.ordinary]
    if task_of(recipe).sides is None:  # else they are checked by the task, which has read them
        taught |= {*as_names(data.prompts)}
        also = [asked.prompts, *also]
    for name in dict.fromkeys((*sorted(taught), *also)):
        if name is not None and Path(name).is_file():
            # What is only asked is cut where generation cuts it.
            own = limits if name in taught else replace(limits, max_prompt=PROMPT_LIMIT)
            findings += check_file(name, tokenizer, limits=own)
    sides: list[tuple[Split, Suite]] = [("choose", prompts.choose), ("report", prompts.report)]
    findings += repeated_prompts(
        [
            (replace(prompt, split=side), Where(prompt.source, 0))
            for side, suite in sides
            for prompt in (*suite.safety, *suite.benign, *suite.ordinary)
            if prompt.attack is None
        ]
    )
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer alone: its weights are not read."""
    from transformers import AutoTokenizer

    from safepref.models import EMBEDDED, embedded_folder

    path = str(embedded_folder()) if model == EMBEDDED else model
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"--model {model}: no tokenizer can be loaded ({reason}); give a hub id, a folder, or {EMBEDDED}"
        ) from error
    return tokenizer
