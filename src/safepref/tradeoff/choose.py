"""Which method at which strength: the most able point whose safety clears the floor.

The choice reads scores of the choose split only; the report split is scored once for the point it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safepref.evaluation.main_rate import SAFETY
from safepref.strength import mean_strength
from safepref.tradeoff.front import Point

ROUNDING = 1e-9
"""One question of a hundred is a loss of .01, and a little more in floating point."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommended point, or none, and the reason in a sentence."""

    point: Point | None
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recommended point must keep to, all 0..1; null for no limit.

    The drops are counted from the base's own scores on the choose split, without which they cannot be held.
    """

    floor: float
    ceiling: float
    capability_drop: float | None = None
    mathematics_drop: float | None = None
    chat_drop: float | None = None
    """Of the mean over the questions asked in the chat."""
    ordinary_ceiling: float | None = None
    """Share of ordinary requests not answered."""


def recommend(points: Sequence[Point], limits: Limits, base: Mapping[str, Any] | None = None) -> Choice:
    """The recommended point.

    Among the points within the limits whose lower end of the safety interval is at least the floor, those
    whose capability lies within one standard error of the highest are held to be equally able (the
    one-standard-error rule of Breiman et al. 1984); of them the one that refuses least is named, then the
    safest: a difference that is noise buys no refusals. None that clears the floor is better than it on every
    axis. Where none clears the floor, the safest point within the limits is named and said to miss it; where
    none is within the limits, nothing is recommended.

    Args:
        points: with their scores on the choose split.
        limits: floor, ceiling and drops.
        base: the base's SCORES on the choose split, needed for the drops.
    """
    usable = [point for point in points if _answers(point, limits)]
    ceilings = [f"{limits.ceiling:.0%} of the harmless look-alikes"]
    if limits.ordinary_ceiling is not None:
        ceilings.append(f"{100 * limits.ordinary_ceiling:g}% of the ordinary requests")
    if not usable:
        return Choice(None, f"every point refuses more than {' or '.join(ceilings)}")
    refuses = " and ".join(ceilings)
    drops = _drops(limits)
    able = [point for point in usable if _kept(point, limits, base)]
    if not able:
        return Choice(None, f"every point that refuses at most {refuses} loses more than {drops}")
    within = f"refuse at most {refuses}" + (f" and lose at most {drops}" if drops else "")
    clear = [point for point in able if point.rate_low >= limits.floor]
    if not clear:
        best = min(able, key=lambda point: (-point.safety, *_order(point)))
        return Choice(
            best,
            f"no point's {best.rate_name} interval lies above the floor of {limits.floor:.0%} on the choose "
            f"split; {best.label} is the {_best(best)} ({best.safety:.1%}) of those that {within}",
        )
    ablest = max(clear, key=lambda point: (point.capability, point.capability_error))
    alike = [point for point in clear if point.capability >= ablest.capability - ablest.capability_error]
    best = min(alike, key=_order)
    return Choice(
        best,
        f"of the {len(clear)} points whose {best.rate_name} interval lies above the floor of "
        f"{limits.floor:.0%} on the choose split and that {within}, {len(alike)} keep as much capability "
        f"as the ablest ({ablest.label}, {ablest.capability:.3f}) within its standard error of "
        f"{ablest.capability_error:.3f}, and {best.label} refuses least of them "
        f"({best.over_refusal:.1%}, capability {best.capability:.3f}{_sums(best)})",
    )


def _answers(point: Point, limits: Limits) -> bool:
    """Whether a point keeps to the ceilings; what was not measured does not."""
    if point.over_refusal > limits.ceiling:
        return False
    ceiling, refused = limits.ordinary_ceiling, point.ordinary
    return ceiling is None or (refused is not None and refused <= ceiling + ROUNDING)


def _order(point: Point) -> tuple[float, ...]:
    """Less is better: refusing, then unsafe, then unable, then more of a change."""
    sums = point.mathematics or 0.0
    return (point.over_refusal, -point.safety, -point.capability, -sums, mean_strength(point.strength))


def _kept(point: Point, limits: Limits, base: Mapping[str, Any] | None) -> bool:
    if base is None:
        return True
    before = Point("base", 1.0, base)
    pairs = (
        (limits.capability_drop, before.capability, point.capability),
        (limits.mathematics_drop, before.mathematics, point.mathematics),
        (limits.chat_drop, before.chat, point.chat),
    )
    return all(
        drop is None or old is None or new is None or old - new <= drop + ROUNDING for drop, old, new in pairs
    )


def _drops(limits: Limits) -> str:
    named = (
        ("of capability", limits.capability_drop),
        ("in mathematics", limits.mathematics_drop),
        ("of the questions in the chat", limits.chat_drop),
    )
    return " or ".join(f"{drop:g} {what}" for what, drop in named if drop is not None)


def _best(point: Point) -> str:
    return "safest" if point.rate_name == SAFETY else "best"


def _sums(point: Point) -> str:
    sums = point.mathematics
    return "" if sums is None or sums == point.capability else f", mathematics {sums:.3f}"
