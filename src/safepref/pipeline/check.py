"""`safepref data check`: the data doctor on a file or a named set, before any run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safepref.data.doctor import check_file, check_source
from safepref.data.findings import Finding
from safepref.data.limits import Limits
from safepref.data.readers import read_prompts
from safepref.data.sources import SOURCES, get_source
from safepref.errors import InputError
from safepref.recipe import TrainingSection

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
    name, _, path = source.partition(":")
    named = name.casefold().replace("_", "-") in SOURCES
    if not named and not Path(source).is_file():
        raise InputError(f"{source}: no such file; give a path, or a named set: {', '.join(SOURCES)}")
    # Rows of every label count: none of them may be trained on.
    evaluation = [prompt for file in against for prompt in read_prompts(file, "general")]
    tokenizer = _tokenizer(model) if model is not None else None
    half = TrainingSection().max_length // 2
    limits = Limits(max_prompt=half, max_completion=half)
    if Path(source).is_file():
        return check_file(source, tokenizer, evaluation=evaluation, limits=limits)
    return check_source(get_source(name), path or None, tokenizer, evaluation=evaluation, limits=limits)


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
