"""A run folder as the report reads it: results.json is needed, what else is missing is said in the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.report.labels import at
from safepref.store import read_json, read_jsonl
from safepref.strength import file_point, parse_strength, strength_json

SCHEMA = 1

NEEDED = {
    "safety": ("base_id", "category", "attack", "verdict"),
    "task": ("base_id", "category", "verdict"),
    "over_refusal": ("base_id", "answered", "refused"),
    "toxicity": ("base_id", "mode", "toxicity"),
    "capability": ("value",),
    "ordinary": ("base_id", "answered", "refused"),
    "chat": ("task", "value", "refused", "answered"),
    "nats": ("task", "nats", "tokens"),
}
"""What a sample of each suite must have to be counted and shown."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What a run left behind. `missing` says in a sentence each what could not be shown, and why."""

    path: Path
    results: dict[str, Any]
    manifest: dict[str, Any]
    judges: dict[str, Any]
    logs: dict[str, list[dict[str, Any]]]
    """Training log rows by method."""
    samples: list[dict[str, Any]]
    """Rows of samples/*.jsonl: the report split's points first, base ahead, then the choose split's."""
    date: str
    """When the run began, in UTC; without a manifest, when results.json was written."""
    missing: list[str] = field(default_factory=list)


def read_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        InputError: no results.json, or one of another schema; a file beside it that is not JSON.
    """
    results = _finite(read_json(path / "results.json"))
    _check(results, path / "results.json")
    missing: list[str] = []
    manifest = _optional(path / "manifest.json", "versions, hardware, times and recipe", missing)
    judges = _optional(path / "judges.json", "what the judges are", missing)
    logs = {}
    for method in results["methods"]:
        file = path / "logs" / method / "training_log.jsonl"
        if file.exists():
            logs[method] = [_finite(row) for row in read_jsonl(file)]
        elif not at(results, "methods", method, "training", "merged"):
            missing.append(f"logs/{method}/training_log.jsonl is not there: no training curves of {method}")
    samples = _samples(path / "samples", list(results["methods"]))
    if not samples:
        missing.append("samples/ holds no samples: no paired gains, and no samples to look at")
    written = datetime.fromtimestamp((path / "results.json").stat().st_mtime, UTC)
    return RunFolder(
        path=path,
        results=results,
        manifest=manifest,
        judges=judges,
        logs=logs,
        samples=samples,
        date=manifest.get("started") or written.strftime("%Y-%m-%d %H:%M UTC"),
        missing=missing,
    )


def _check(results: Any, file: Path) -> None:
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        found = results.get("schema") if isinstance(results, dict) else type(results).__name__
        raise InputError(
            f"{file}: schema is {found!r}, this version reads {SCHEMA}; use the one that wrote it"
        )
    for key, kind in (("model", str), ("base", dict), ("methods", dict)):
        if not isinstance(results.get(key), kind):
            raise InputError(f"{file}: {key!r} is missing or no {kind.__name__}; run into a new folder")
    for name, entry in results["methods"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("scores"), dict):
            raise InputError(f"{file}: methods.{name} has no scores; run into a new folder")


def _optional(file: Path, what: str, missing: list[str]) -> dict[str, Any]:
    if not file.exists():
        missing.append(f"{file.name} is not there: {what} cannot be shown")
        return {}
    value = _finite(read_json(file))
    if not isinstance(value, dict):
        raise InputError(f"{file}: expected an object, got {type(value).__name__}; leave the file out")
    return value


def _samples(folder: Path, methods: list[str]) -> list[dict[str, Any]]:
    order = {name: number for number, name in enumerate(["base", *methods])}

    def place(file: Path) -> tuple[bool, int, str]:
        split, _, point = file.stem.partition(".")
        return split != "report", order.get(point.partition("@")[0], len(order)), point

    files = sorted(folder.glob("*.jsonl"), key=place)
    return [_labelled(row, file, number) for file in files for number, row in enumerate(read_jsonl(file), 1)]


def _labelled(row: dict[str, Any], file: Path, number: int) -> dict[str, Any]:
    """A row whose point and split are taken from the file's name where the row does not carry them."""
    if row.get("suite") not in NEEDED:
        raise InputError(f"{file}:{number}: suite is {row.get('suite')!r}; one of {', '.join(NEEDED)}")
    lacking = [key for key in ("id", *NEEDED[row["suite"]]) if key not in row]
    if lacking:
        raise InputError(f"{file}:{number}: {lacking[0]!r} is missing; mend the row, or leave the file out")
    split, _, name = file.stem.partition(".")
    point = file_point(name)
    method, _, strength = point.partition("@")
    defaults = {"split": split, "point": point, "method": method}
    given = strength_json(parse_strength(strength, str(file))) if strength else 1.0
    return {**defaults, "strength": given, **row}


def _finite(value: Any) -> Any:
    """The value with NaN and infinities, which no browser's JSON reads, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
