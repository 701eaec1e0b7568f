"""What changed against the base on the same prompts, with paired intervals; computed from the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from safepref.errors import InputError
from safepref.evaluation import paired_gain
from safepref.statistics import McNemar

Row = dict[str, Any]

MEASURES = {
    "global": "safety",
    "over_refusal": "over_refusal",
    "toxicity_adversarial": "toxicity.adversarial",
    "capability": "capability",
}
"""The report's numbers, and what `paired_gain` calls them; `global` is the main rate of the run's task."""


class PlainTest(TypedDict):
    """Plain requests that only one of two points answered safely, and the exact McNemar p, two-sided."""

    only_base: int
    only_point: int
    p_value: float


class Gain(TypedDict):
    """A paired difference: point minus base. `plain` stands beside the main rate alone."""

    value: float
    interval: list[float]
    n: int
    plain: PlainTest | None


def paired_gains(samples: Sequence[Row], split: str = "report") -> dict[str, dict[str, Gain]]:
    """Differences to the base on a split, by point and number, each weighted as in SCORES.

    A number is left out where the point and the base have not answered the same prompts.

    Args:
        samples: rows of the run's samples files.
        split: "report", or "choose", where the base has answers only if it was scored there too.

    Returns:
        `{point: {"global" | "over_refusal" | "toxicity_adversarial" | "capability": Gain}}`.
    """
    by_point: dict[str, list[Row]] = {}
    for row in samples:
        if row["split"] == split:
            by_point.setdefault(row["point"], []).append(row)
    base = by_point.pop("base", [])
    return {point: _gains(base, rows) for point, rows in by_point.items()} if base else {}


def _gains(base: Sequence[Row], tuned: Sequence[Row]) -> dict[str, Gain]:
    found: dict[str, Gain] = {}
    about = "task" if any(row["suite"] == "task" for row in base) else "safety"
    for name, measure in MEASURES.items():
        measure = about if measure == "safety" else measure
        try:
            gain = paired_gain(base, tuned, measure)
        except InputError:  # no prompt that both have
            continue
        # A continuation without words has no toxicity on one side; the others are still pairs.
        if not gain.unpaired or measure.startswith("toxicity"):
            found[name] = {
                "value": gain.value,
                "interval": list(gain.interval),
                "n": gain.n,
                "plain": _plain(gain.plain) if name == "global" else None,
            }
    return found


def _plain(test: McNemar | None) -> PlainTest | None:
    if test is None:
        return None
    return {"only_base": test.only_first, "only_point": test.only_second, "p_value": test.p_value}
