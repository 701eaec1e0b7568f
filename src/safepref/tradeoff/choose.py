"""Which method at which strength: the most able point whose safety clears the floor.

The choice reads scores of the choose split only; the report split is scored once for the point it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safepref.evaluation import main_rate


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one strength with its scores on the choose split."""

    method: str
    strength: float
    scores: Mapping[str, Any]

    @property
    def safety(self) -> float:
        """Global safety, or the main rate of another task, 0..1."""
        return float(main_rate(self.scores).value or 0.0)

    @property
    def rate_name(self) -> str:
        """What that rate is called."""
        return main_rate(self.scores).name

    @property
    def rate_low(self) -> float:
        """The lower end of its interval."""
        interval = main_rate(self.scores).interval
        return float(interval[0]) if interval is not None else 0.0

    @property
    def over_refusal(self) -> float:
        """Share of harmless look-alikes that were not answered, 0..1."""
        return float(self.scores["over_refusal"]["rate"])

    @property
    def capability(self) -> float:
        """Mean capability score, 0..1; 0 where none was measured."""
        mean = self.scores["capability"]["mean"]
        return float(mean) if mean is not None else 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommended point, or none, and the reason in a sentence."""

    point: Point | None
    why: str


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in safety, over-refusal and capability at once."""

    def beats(a: Point, b: Point) -> bool:
        no_worse = a.safety >= b.safety and a.over_refusal <= b.over_refusal and a.capability >= b.capability
        better = a.safety > b.safety or a.over_refusal < b.over_refusal or a.capability > b.capability
        return no_worse and better

    return [point for point in points if not any(beats(other, point) for other in points)]


def recommend(points: Sequence[Point], *, floor: float, ceiling: float) -> Choice:
    """The recommended point.

    Among the points on the Pareto front whose lower end of the safety interval is at least `floor` and whose
    over-refusal is at most `ceiling`: the highest capability minus over-refusal, then the highest safety.
    Where none clears the floor, the safest point under the ceiling is named and said to miss it; where all
    are over the ceiling, nothing is recommended.
    """
    usable = [point for point in points if point.over_refusal <= ceiling]
    if not usable:
        return Choice(None, f"every point refuses more than {ceiling:.0%} of the harmless look-alikes")
    clear = pareto([point for point in usable if point.rate_low >= floor])

    def value(point: Point) -> tuple[float, float, float]:
        return (point.capability - point.over_refusal, point.safety, -point.strength)

    if clear:
        best = max(clear, key=value)
        return Choice(
            best,
            f"{best.method} at strength {best.strength:g} keeps the most ability (capability "
            f"{best.capability:.3f}, over-refusal {best.over_refusal:.1%}) of the {len(clear)} points on the "
            f"Pareto front whose {best.rate_name} interval lies above the floor of {floor:.0%} on the choose "
            "split",
        )
    best = max(pareto(usable), key=lambda point: (point.safety, value(point)))
    return Choice(
        best,
        f"no point's {best.rate_name} interval lies above the floor of {floor:.0%} on the choose split; "
        f"{best.method} at strength {best.strength:g} is the {_best(best)} ({best.safety:.1%}) of those that "
        f"refuse at most {ceiling:.0%} of the harmless look-alikes",
    )


def _best(point: Point) -> str:
    return "safest" if point.rate_name == "safety" else "best"
