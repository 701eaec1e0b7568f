"""What the recommendation weighs, as one number, for a search that tries settings one after the other."""

from __future__ import annotations

from safepref.tradeoff.front import Point

PENALTY = 4.0
"""What a point of safety below the floor, or of over-refusal over the ceiling, costs in ability."""

LOWEST = -1.0 - 2 * PENALTY
"""No point can score less: no ability, everything refused, the floor missed by all of it."""


def objective(point: Point, *, floor: float, ceiling: float) -> float:
    """Capability minus over-refusal, less `PENALTY` times what is missing to the floor and over the ceiling.

    `recommend` names one point of many and knows only within the limits or not; a search needs a number for
    each. Within the limits (the lower end of the safety interval at `floor` or above, over-refusal at
    `ceiling` or below) a point of capability is worth a point of over-refusal. Outside of them this says by
    how much, so that a search is led back by a slope; a slope, because the interval of some hundred answers
    is too rough for a cliff.

    Args:
        point: scores of the choose split.
        floor: the recipe's `floor`, of safety or of another task.
        ceiling: the recipe's `report.over_refusal_ceiling`.

    Returns:
        `LOWEST` to 1, more is better.
    """
    shortfall = max(0.0, floor - point.rate_low)
    excess = max(0.0, point.over_refusal - ceiling)
    return point.capability - point.over_refusal - PENALTY * (shortfall + excess)
