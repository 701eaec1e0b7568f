"""The data doctor: everything about prompts and pairs that would spoil a run, found before it starts.

An error is a row that must not be trained or scored on; a warning is one to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safepref.data import checks
from safepref.data.findings import Finding, bad_row, has_errors, warning
from safepref.data.limits import Limits
from safepref.data.readers import parse_dialogue, parse_pair, parse_prompt
from safepref.data.records import Example, Pair, Prompt
from safepref.data.rows import Row, RowError, Where, iter_rows
from safepref.data.sources.base import Source
from safepref.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Finding",
    "check_examples",
    "check_file",
    "check_pairs",
    "check_prompts",
    "check_source",
    "has_errors",
]

Record = TypeVar("Record", bound=Pair | Prompt)
Item = TypeVar("Item")


def check_file(
    path: Path | str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    evaluation: Sequence[Prompt] = (),
    limits: Limits | None = None,
) -> list[Finding]:
    """Every finding in a file of pairs or of prompts, sorted by row; what it holds is seen from its columns.

    Arguments as `check_pairs`.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    file = str(path)
    rows = list(iter_rows(Path(path)))
    objects = [row for _, row in rows if isinstance(row, dict)]
    if sum("chosen" in row or "rejected" in row for row in objects) * 2 <= len(objects):
        bad, prompts, places = _parse(rows, lambda row, where: parse_prompt(row, where, "harmful"))
        found = check_prompts(
            prompts, tokenizer, evaluation=evaluation, limits=limits, file=file, rows=places
        )
        return _sorted(bad + found)
    bad, pairs, places = _parse(rows, parse_pair)
    implied = [where for where, row in rows if isinstance(row, dict) and _implies_prompt_by_text(row)]
    if implied:
        problem = f"missing in {len(implied)} rows: what chosen and rejected begin with in common is taken"
        bad.append(warning(implied[0], "prompt", problem, "add the prompt as a field of its own"))
    return _sorted(
        bad + check_pairs(pairs, tokenizer, evaluation=evaluation, limits=limits, file=file, rows=places)
    )


def check_source(
    source: Source,
    path: Path | str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    evaluation: Sequence[Prompt] = (),
    limits: Limits | None = None,
) -> list[Finding]:
    """Every finding in a public set, or in a file in its columns (`path`). Other arguments as `check_pairs`.

    Raises:
        InputError: the set as a whole cannot be read, or holds no row that could be used.
    """
    rows = source.gather(source.rows(path)) if source.gather else source.rows(path)
    bad, records, places = _parse(list(rows), source.parse)
    if not bad and not records:
        raise InputError(f"data set {source.name}: no usable row; is the file in the set's own columns?")
    options: Any = {"evaluation": evaluation, "limits": limits, "file": source.name, "rows": places}
    if source.holds == "pairs":
        bad += check_pairs([r for r in records if isinstance(r, Pair)], tokenizer, **options)
    else:
        bad += check_prompts([r for r in records if isinstance(r, Prompt)], tokenizer, **options)
    return _sorted(bad)


def check_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    evaluation: Sequence[Prompt] = (),
    limits: Limits | None = None,
    system: str | None = None,
    file: str = "pairs",
    rows: Sequence[int | Where] | None = None,
) -> list[Finding]:
    """Findings over training pairs: each by itself, among themselves, and against the evaluation prompts.

    Args:
        pairs: what is to be trained on.
        tokenizer: with it, token counts, special tokens and the prompt-completion boundary are checked too.
        evaluation: prompts of the choose and report splits.
        limits: with the tokenizer, what would be cut.
        system: the system prompt that training will use.
        file: the name to print.
        rows: `(N,)` row numbers or places to print; by default where each was read, else 1, 2, ….
    """
    if rows is None:
        rows = [_origin(pair) or Where(file, number) for number, pair in enumerate(pairs, 1)]
    places = _places(len(pairs), file, rows)
    findings: list[Finding] = []
    for pair, where in zip(pairs, places, strict=True):
        broken = checks.messages(pair.messages, where) + checks.answers(pair, where)
        findings += broken + checks.texts(_texts(pair), where, tokenizer)
    findings += checks.repeated_pairs(pairs, places)
    findings += checks.balance(pairs, file)
    findings += checks.against(pairs, evaluation, places)
    if tokenizer is not None:
        written = [(pair.messages, {"chosen": pair.chosen, "rejected": pair.rejected}) for pair in pairs]
        findings += checks.tokens(_sound(written, places, findings), tokenizer, limits, system, file)
    return _sorted(findings)


def check_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    evaluation: Sequence[Prompt] = (),
    limits: Limits | None = None,
    system: str | None = None,
    file: str = "examples",
) -> list[Finding]:
    """Findings over anchor examples: what `check_pairs` finds, with the one answer that there is."""
    findings: list[Finding] = []
    places = _places(len(examples), file, None)
    for example, where in zip(examples, places, strict=True):
        findings += checks.messages(example.messages, where)
        findings += checks.completions([("completion", example.completion)], where)
        findings += checks.texts([*_turns(example), ("completion", example.completion)], where, tokenizer)
    asked = [Prompt(e.id, e.messages, "general") for e in examples]
    findings += checks.repeated_prompts(list(zip(asked, places, strict=True)))
    findings += checks.against(asked, evaluation, places, templates=False)
    if tokenizer is not None:
        written = [(example.messages, {"completion": example.completion}) for example in examples]
        findings += checks.tokens(_sound(written, places, findings), tokenizer, limits, system, file)
    return _sorted(findings)


def check_prompts(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    evaluation: Sequence[Prompt] = (),
    limits: Limits | None = None,
    system: str | None = None,
    file: str = "prompts",
    rows: Sequence[int | Where] | None = None,
) -> list[Finding]:
    """Findings over prompts: each by itself, repeats, and prompts or templates that stand in two splits.

    Arguments as `check_pairs`; prompts whose `attack` is set are variants of one request and not compared.
    """
    places = _places(len(prompts), file, rows)
    findings: list[Finding] = []
    for prompt, where in zip(prompts, places, strict=True):
        findings += checks.messages(prompt.messages, where)
        findings += checks.texts(_turns(prompt), where, tokenizer)
    plain = [(p, where) for p, where in zip(prompts, places, strict=True) if p.attack is None]
    findings += checks.repeated_prompts(plain)
    if len({prompt.split for prompt, _ in plain}) > 1:
        findings += checks.shared_templates(plain)
    findings += checks.against([p for p, _ in plain], evaluation, [where for _, where in plain])
    if tokenizer is not None and limits is not None:
        findings += checks.long_prompts(_sound(prompts, places, findings), tokenizer, limits, system)
    return _sorted(findings)


def _parse(
    rows: Sequence[tuple[Where, Row | RowError]], parse: Callable[[Row, Where], Record | None]
) -> tuple[list[Finding], list[Record], list[Where]]:
    """Findings for the rows that cannot be read, the records of the others, and their places."""
    bad, records, places = [], [], []
    for where, row in rows:
        try:
            if isinstance(row, RowError):
                raise row
            record = parse(row, where)
            if record is not None:
                records.append(record)
                places.append(where)
        except RowError as problem:
            bad.append(bad_row(problem))
    return bad, records, places


def _places(count: int, file: str, rows: Sequence[int | Where] | None) -> list[Where]:
    given = rows if rows is not None else range(1, count + 1)
    return [row if isinstance(row, Where) else Where(file, row) for row in given]


def _origin(pair: Pair) -> Where | None:
    """Where a pair was read, if it says so."""
    file, row = pair.meta.get("file"), pair.meta.get("row")
    return Where(file, row) if isinstance(file, str) and isinstance(row, int) else None


def _sound(
    items: Sequence[Item], places: Sequence[Where], found: Sequence[Finding]
) -> list[tuple[Item, Where]]:
    """What is not broken, with its place: the rest cannot be rendered."""
    broken = {(finding.file, finding.row) for finding in found if finding.severity == "error"}
    return [(item, where) for item, where in zip(items, places, strict=True) if where not in broken]


def _turns(record: Pair | Prompt | Example) -> list[tuple[str, str]]:
    return [(f"messages[{i}]", m["content"]) for i, m in enumerate(record.messages)]


def _texts(pair: Pair) -> list[tuple[str, str]]:
    return [*_turns(pair), ("chosen", pair.chosen), ("rejected", pair.rejected)]


def _implies_prompt_by_text(row: Row) -> bool:
    chosen = row.get("chosen")
    return "prompt" not in row and isinstance(chosen, str) and parse_dialogue(chosen) is None


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.row)
