"""A and B of a comparison: run folders, their points, or samples files, brought to the same split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.evaluation.toxicity import MODES
from safepref.judges.base import Verdict
from safepref.report.folder import NEEDED
from safepref.store import read_json, read_jsonl
from safepref.strength import file_point, parse_strength, point_name

Row = dict[str, Any]

SPLITS = ("report", "choose")
"""In the order in which they are preferred: nothing was chosen on the report split."""

_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "safety": {"verdict": (Verdict.HARMFUL, Verdict.HARMLESS, Verdict.UNSCORED)},
    "task": {"verdict": (Verdict.GOOD, Verdict.BAD, Verdict.UNSCORED)},
    "toxicity": {"mode": MODES},
}
"""What a field of a suite's rows may say."""

JUDGED = ("safety", "task")
"""Suites whose rows have a judge's verdict."""
_NUMBERS = {"toxicity": "toxicity", "capability": "value"}


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its name for people, the samples file of each split that it has, and the run's folder.

    `model` and `strength` pick the rows of one model out of a samples file with several.
    """

    name: str
    files: Mapping[str, Path]
    run: Path | None = None
    model: str | None = None


def resolve(text: str) -> Side:
    """What an argument names.

    A run folder is its recommended point, else its only method; `RUN:base`, `RUN:METHOD` and
    `RUN:METHOD@STRENGTH` (0.8, or 1/0.6/1 by groups of layers) are its points; a `.jsonl` file is what
    `safepref evaluate --samples` wrote, and `FILE:MODEL` one of several models in it.

    Raises:
        InputError: nothing there, no such point, or nothing recommended.
    """
    path, point = Path(text), ""
    if not path.exists() and ":" in text:
        folder, _, point = text.rpartition(":")
        path = Path(folder)
    if path.is_file():
        return Side(text, {"report": path}, None, point or None)
    if not path.is_dir():
        raise InputError(f"{text}: no such run folder or samples file; give RUN, RUN:METHOD or FILE.jsonl")
    points = _points(path)
    if not points:
        raise InputError(
            f"{path}: samples/ holds no samples; finish the run with `safepref run --out {path}`"
        )
    chosen = _canonical(point, text) if point else _default(path, points)
    if chosen not in points:
        raise InputError(f"{text}: no samples of {chosen} in {path}; it has {', '.join(points)}")
    return Side(f"{path}:{chosen}", points[chosen], path)


def _points(run: Path) -> dict[str, dict[str, Path]]:
    """Samples files by point and split; a method alone is its strength 1."""
    found: dict[str, dict[str, Path]] = {}
    for split in SPLITS:
        for file in sorted((run / "samples").glob(f"{split}.*.jsonl")):
            point = _canonical(file_point(file.stem.partition(".")[2]), str(file))
            found.setdefault(point, {})[split] = file
    return found


def _canonical(point: str, where: str) -> str:
    """A point as the report split's files are named: `nca@1` is `nca`."""
    method, at, strength = point.partition("@")
    if not at:
        return method
    return point_name(method, parse_strength(strength, where))


def _default(run: Path, points: Mapping[str, Any]) -> str:
    """The point that a bare run folder stands for."""
    file = run / "results.json"
    if not file.exists():
        raise InputError(f"{run}: not finished (no results.json); name a point: {_named(run, points)}")
    results = read_json(file)
    chosen = (results.get("recommended") or {}) if isinstance(results, dict) else None
    if not isinstance(chosen, dict) or not isinstance(results.get("methods") or {}, dict):
        raise InputError(f"{file}: not the results of a run; name a point: {_named(run, points)}")
    if chosen.get("method") is not None:
        return _canonical(f"{chosen['method']}@{chosen.get('strength')}", str(file))
    methods = list(results.get("methods") or {})
    if len(methods) == 1:
        return str(methods[0])
    raise InputError(f"{run}: the run recommends no point; name one: {_named(run, points)}")


def _named(run: Path, points: Mapping[str, Any]) -> str:
    return ", ".join(f"{run}:{point}" for point in points)


def common_split(a: Side, b: Side) -> str:
    """The split that both sides were asked, the report split first.

    Raises:
        InputError: both are the same samples, or they have no split in common.
    """
    shared = [split for split in SPLITS if split in a.files and split in b.files]
    if not shared:
        raise InputError(
            f"{a.name} was asked the {' and '.join(a.files)} split and {b.name} the {' and '.join(b.files)} "
            "split: their prompts differ; compare points of one split, or score both with `safepref evaluate`"
        )
    same = a.files[shared[0]].resolve() == b.files[shared[0]].resolve()
    if same and a.model == b.model:
        raise InputError(
            f"A and B are the same samples ({a.files[shared[0]]}); name two, for example RUN:base RUN:nca"
        )
    return shared[0]


def read_side(side: Side, split: str) -> list[Row]:
    """The rows of one side.

    Raises:
        InputError: a row that is not a sample, lacks a field or holds a bad number (file and row are named),
        or several models in one file.
    """
    file = side.files[split]
    rows = [_checked(row, f"{file}:{number}") for number, row in enumerate(read_jsonl(file), 1)]
    # `safepref evaluate` labels rows with their model; a run's rows carry a point instead.
    models = list(dict.fromkeys(row["model"] for row in rows if "model" in row and "point" not in row))
    if side.model is not None:
        if side.model not in models:
            there = ", ".join(map(str, models)) or "none that is named"
            raise InputError(f"{file}: no rows of model {side.model!r}; models in it: {there}")
        return [row for row in rows if row.get("model") == side.model]
    if len(models) > 1:
        raise InputError(f"{file}: holds {len(models)} models; name one, for example {file}:{models[0]}")
    if not rows:
        raise InputError(f"{file}: holds no samples; evaluate again with --samples {file}")
    return rows


def _checked(row: Row, where: str) -> Row:
    suite = row.get("suite")
    if not isinstance(suite, str) or suite not in NEEDED:
        raise InputError(f"{where}: suite is {suite!r:.60}; one of {', '.join(NEEDED)}")
    needed = ("id", *NEEDED[suite], *(("task",) if suite == "capability" else ()))
    lacking = [key for key in needed if key not in row]
    if lacking:
        raise InputError(f"{where}: {lacking[0]!r} is missing; mend the row, or evaluate again")
    _check_types(row, suite, where)
    key = _NUMBERS.get(suite)
    if key is not None and not (row[key] is None and suite == "toxicity"):
        value = row[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{where}: {key} is {value!r:.60}; a number in 0..1, or evaluate again")
    return row


def _check_types(row: Row, suite: str, where: str) -> None:
    """Fields that decide what counts as safe or answered, and by which rows are paired."""
    for key, words in _WORDS.get(suite, {}).items():
        if row[key] not in words:
            raise InputError(
                f"{where}: {key} is {row[key]!r:.60}; one of {', '.join(words)}, or evaluate again"
            )
    if suite in JUDGED and not isinstance(row.get("judge"), str):
        raise InputError(f"{where}: judge is {row.get('judge')!r}; the name of one, or evaluate again")
    if suite == "over_refusal" and not isinstance(row["answered"], bool):
        raise InputError(f"{where}: answered is {row['answered']!r}; true or false, or evaluate again")
    names = [key for key in ("id", "base_id", "task") if key in row and not isinstance(row[key], str | int)]
    may_lack = ("attack", "judge", "model")
    wrong = names + [key for key in may_lack if not isinstance(row.get(key), str | None)]
    if wrong:
        raise InputError(f"{where}: {wrong[0]} is {row[wrong[0]]!r:.60}; a text, or evaluate again")
    given = row.get("verdicts")
    if given is not None and not (
        isinstance(given, dict) and all(isinstance(v, dict) for v in given.values())
    ):
        raise InputError(f"{where}: verdicts is {given!r:.60}; by judge an object, or evaluate again")
