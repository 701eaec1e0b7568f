"""Points of a trade-off and their Pareto front over safety, over-refusal, capability and mathematics.

Mathematics has an axis of its own because it is what alignment costs first (arXiv 2409.07772); it is the
accuracy of the arithmetic tasks, which the mean of capability holds too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean
from typing import Any

from safepref.evaluation.main_rate import main_rate
from safepref.statistics import LEVEL
from safepref.strength import Strength, strength_text

AXES = ("safety", "over_refusal", "capability", "mathematics")
"""Over-refusal is better low, the others high. `safety` is the main rate of the run's task."""
WIDTH = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half an interval in standard errors."""
MATHEMATICS = "arithmetic"
"""Tasks whose name begins so are mathematics."""


@dataclass(frozen=True, slots=True)
class Point:
    """One method, or merge, at one strength with its scores on the choose split."""

    method: str
    strength: Strength
    scores: Mapping[str, Any]

    @property
    def label(self) -> str:
        """For sentences: "nca at strength 0.8"."""
        return f"{self.method} at strength {strength_text(self.strength)}"

    @property
    def safety(self) -> float:
        """Global safety, or the main rate of another task, 0..1; 0 where none was measured."""
        return float(main_rate(self.scores).value or 0.0)

    @property
    def rate_name(self) -> str:
        """What that rate is called."""
        return main_rate(self.scores).name

    @property
    def rate_low(self) -> float:
        """The lower end of its interval; 0 where none was measured."""
        interval = main_rate(self.scores).interval
        return float(interval[0]) if interval is not None else 0.0

    @property
    def over_refusal(self) -> float:
        """Share of harmless look-alikes that were not answered, 0..1."""
        return float(self.scores["over_refusal"]["rate"])

    @property
    def capability(self) -> float:
        """Mean over the tasks, those asked in the chat among them, 0..1; 0 where none was measured."""
        return capability_of(self.scores)[0] or 0.0

    @property
    def mathematics(self) -> float | None:
        """Accuracy in arithmetic, 0..1; None where none was asked."""
        return mathematics_of(self.scores)[0]

    @property
    def ordinary(self) -> float | None:
        """Share of ordinary requests that were not answered, 0..1; None where none was asked."""
        part = self.scores.get("ordinary")
        return float(part["refused"]) if part else None

    @property
    def chat(self) -> float | None:
        """Mean score over what is asked in the chat, 0..1; None where nothing was."""
        known = [float(task["score"]) for task in _chat(self.scores)]
        return mean(known) if known else None

    @property
    def capability_error(self) -> float:
        """Standard error of `capability`, from its interval; 0 where it has none."""
        interval = capability_of(self.scores)[1]
        return 0.0 if interval is None else (interval[1] - interval[0]) / (2 * WIDTH)

    def value(self, axis: str) -> float | None:
        """The value on one of `AXES`."""
        found: float | None = getattr(self, axis)
        return found


def capability_of(scores: Mapping[str, Any] | None) -> tuple[float | None, list[float] | None]:
    """Mean over the tasks, each task once, and its interval; None where none was asked.

    Likelihoods miss a model that refuses "capital of France", so tasks asked in the chat count like the
    others, but for arithmetic where sums are asked already: they have an axis of their own. With them the
    interval is the normal one of the mean of independent tasks.
    """
    part = (scores or {}).get("capability") or {}
    own, interval = part.get("mean"), part.get("interval")
    sums = any(name.startswith(MATHEMATICS) for name in part.get("tasks") or {})
    chat = _chat(scores, without=MATHEMATICS if sums else None)
    if not chat:
        return (None if own is None else float(own)), interval
    parts = [(1, float(task["score"]), _half(task)) for task in chat]
    if own is not None:
        parts.append((max(1, len(part["tasks"])), float(own), _half(part)))
    total = sum(count for count, _, _ in parts)
    value = sum(count * score for count, score, _ in parts) / total
    half = math.hypot(*(count * width for count, _, width in parts)) / total
    return value, [value - half, value + half]


def _chat(scores: Mapping[str, Any] | None, without: str | None = None) -> list[Mapping[str, Any]]:
    """The tasks asked in the chat that have a score, but for one."""
    asked = ((scores or {}).get("capability") or {}).get("chat") or {}
    return [task for name, task in asked.items() if task["score"] is not None and name != without]


def _half(part: Mapping[str, Any]) -> float:
    interval = part.get("interval")
    return 0.0 if interval is None else (float(interval[1]) - float(interval[0])) / 2


def mathematics_of(scores: Mapping[str, Any] | None) -> tuple[float | None, list[float] | None]:
    """Accuracy in arithmetic and its interval, which only a single task has; None where none was asked."""
    part = (scores or {}).get("capability") or {}
    tasks = {name: score for name, score in (part.get("tasks") or {}).items() if name.startswith(MATHEMATICS)}
    if not tasks:
        return None, None
    interval = (part.get("intervals") or {}).get(next(iter(tasks))) if len(tasks) == 1 else None
    return mean(map(float, tasks.values())), interval


def gains(point: Point) -> tuple[float, ...]:
    """Values `(A,)` of a point on the axes that it has, each better high."""
    found = []
    for axis in AXES:
        value = point.value(axis)
        if value is not None:
            found.append(-value if axis == "over_refusal" else value)
    return tuple(found)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats: as good on every axis and better on one."""
    values = [gains(point) for point in points]

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return len(a) == len(b) and a != b and all(x >= y for x, y in zip(a, b, strict=True))

    return [
        point
        for point, own in zip(points, values, strict=True)
        if not any(beats(other, own) for other in values)
    ]
