"""What results.json says of ability beside SCORES: decided on the base, and paired with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.evaluation import above_chance, mean_above_chance, paired_gain, paired_nats
from safepref.store import read_jsonl
from safepref.strength import parse_strength, point_file, point_name

Row = dict[str, Any]
Scores = dict[str, Any]


def add_ability(results: dict[str, Any], out: Path) -> None:
    """Put into the report split's scores, in place, what only base and point together give.

    `capability.above_chance` names the tasks on which the base is above chance by three standard errors,
    `capability.mean_above_chance` is the mean over these. `changes` of each trained point has the paired
    differences to the base by measure, each `{"value", "interval", "n"}`: capability,
    capability.above_chance, ordinary, perplexity (nats a token), chat.TASK and nats.TASK.

    Args:
        results: of a run, with base, methods and recommended.
        out: the run folder, whose samples are read.
    """
    base = _samples(out, "base")
    tasks = above_chance(base)
    for name, scores in _points(results):
        add_above_chance(scores, tasks)
        if name != "base" and "changes" not in scores:
            scores["changes"] = changes(base, _samples(out, name))


def add_above_chance(scores: Scores, tasks: Sequence[str]) -> None:
    """Put `above_chance` and `mean_above_chance` into scores with capability."""
    found = scores.get("capability")
    if found and found["tasks"]:
        found["above_chance"] = list(tasks)
        found["mean_above_chance"] = mean_above_chance(found["tasks"], tasks)


def changes(base: Sequence[Row], point: Sequence[Row]) -> dict[str, Any]:
    """The paired differences, point minus base, of all measures of ability that both have rows of."""
    tasks = {suite: {row["task"]: 0 for row in base if row["suite"] == suite} for suite in ("chat", "nats")}
    found: dict[str, Any] = {}
    for measure in (
        "capability",
        "capability.above_chance",
        "ordinary",
        *(f"chat.{task}" for task in tasks["chat"]),
    ):
        try:
            gain = paired_gain(base, point, measure)
        except InputError:  # not asked, or nothing is above chance
            continue
        found[measure] = {"value": gain.value, "interval": list(gain.interval), "n": gain.n}
    for measure in ("perplexity", *(f"nats.{task}" for task in tasks["nats"])):
        try:
            drift = paired_nats(base, point, measure)
        except InputError:
            continue
        found[measure] = {"value": drift.value, "interval": list(drift.interval), "n": drift.n}
    return found


def _points(results: dict[str, Any]) -> Iterator[tuple[str, Scores]]:
    yield "base", results["base"]
    for name, entry in results["methods"].items():
        yield name, entry["scores"]
    chosen = results["recommended"]
    if chosen.get("method") is not None:
        strength = parse_strength(chosen["strength"], "recommended")
        yield point_name(chosen["method"], strength), chosen["scores"]


def _samples(out: Path, point: str) -> list[Row]:
    path = out / "samples" / f"report.{point_file(point)}.jsonl"
    return read_jsonl(path) if path.exists() else []
