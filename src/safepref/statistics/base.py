"""What all of the statistics share: intervals, estimates, and the checks of what comes in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safepref.errors import InputError

Floats = NDArray[np.float64]
Labels = Sequence[Hashable] | NDArray[Any]

LEVEL = 0.95
DRAWS = 2000


class Interval(NamedTuple):
    """A two-sided interval; serialises as `[low, high]`."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value with its interval and the number of observations behind it."""

    value: float
    interval: Interval
    n: int


def check_level(level: float) -> None:
    """Refuse a coverage that is not between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise InputError(f"level: {level} is not between 0 and 1; use for example 0.95")


def floats(values: ArrayLike, what: str) -> Floats:
    """Values as float64; `what` names them in the error where there are none, or NaN or infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise InputError(f"{what}: no observations; give at least one")
    if not np.isfinite(array).all():
        raise InputError(f"{what}: holds NaN or infinity; leave unscored rows out before computing")
    return array


def codes(labels: Labels | None, n: int, what: str) -> tuple[NDArray[np.intp], int]:
    """Labels as integers 0..k-1 in order of first appearance; without labels every row is its own."""
    if labels is None:
        return np.arange(n), n
    if len(labels) != n:
        raise InputError(f"{what}: {len(labels)} labels for {n} values; give one for each value")
    index: dict[Hashable, int] = {}
    numbers = np.fromiter((index.setdefault(label, len(index)) for label in labels), dtype=np.intp, count=n)
    return numbers, len(index)
