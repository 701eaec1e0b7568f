"""Hypervolume: how much of all demands the points of a method meet (Zitzler and Thiele 1999).

The volume of what is dominated by at least one point and better than a reference point. With the worst
values as reference it is the chance that a demand (safety, over-refusal, capability, mathematics), drawn
evenly, is met by some strength of the method. Exact, by slicing one objective after the other (While et al.
2006); at tens of points that is milliseconds, so no library of compiled code is needed for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safepref.tradeoff.front import AXES, Point


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume dominated by `points` `(N, D)` above `reference` `(D,)`, all coordinates better high."""
    inside = [
        tuple(map(float, point))
        for point in points
        if all(value > worst for value, worst in zip(point, reference, strict=True))
    ]
    return _volume(inside, tuple(map(float, reference)))


def _volume(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return max(point[0] for point in points) - reference[0]
    total, rest = 0.0, sorted(set(points), reverse=True)
    # From the best value of the first objective down: in each slice all points that reach it count.
    for number, point in enumerate(rest):
        below = rest[number + 1][0] if number + 1 < len(rest) else reference[0]
        if point[0] > below:
            slab = _undominated([other[1:] for other in rest[: number + 1]])
            total += (point[0] - below) * _volume(slab, reference[1:])
    return total


def _undominated(points: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    distinct = list(dict.fromkeys(points))
    return [
        point
        for point in distinct
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True)) for other in distinct
        )
    ]


def axes_of(points: Sequence[Point]) -> tuple[str, ...]:
    """The axes that hypervolume is counted over: mathematics only where it is not all of capability.

    On a split that asks nothing but arithmetic the two are one number, which must not count twice.
    """
    apart = any(p.mathematics is not None and p.mathematics != p.capability for p in points)
    known = all(p.mathematics is not None for p in points)
    return AXES if apart and known else AXES[:3]


def hypervolumes(points: Sequence[Point], reference: Mapping[str, float]) -> dict[str, float]:
    """Hypervolume of each method's points, in the units of its axes' rates 0..1.

    Args:
        points: of all methods; the axes are the same for all of them (`axes_of`).
        reference: the worst of each axis; a point that is no better on one of them adds nothing.
    """
    axes = axes_of(points)
    signs = [-1.0 if axis == "over_refusal" else 1.0 for axis in axes]
    worst = [sign * reference[axis] for sign, axis in zip(signs, axes, strict=True)]
    by_method: dict[str, list[list[float]]] = {}
    for point in points:
        values = [sign * (point.value(axis) or 0.0) for sign, axis in zip(signs, axes, strict=True)]
        by_method.setdefault(point.method, []).append(values)
    return {method: hypervolume(values, worst) for method, values in by_method.items()}
