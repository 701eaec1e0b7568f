"""Intervals of a proportion, and of what a bootstrap drew."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from safepref.errors import InputError
from safepref.statistics.base import LEVEL, Interval, check_level


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a proportion; it keeps its coverage near 0 and 1, where bootstraps fail.

    Args:
        successes: how many of `n`, 0..n; not whole where rows are weighted, which is why this is not scipy's
            `binomtest(...).proportion_ci("wilson")`: that one takes whole numbers only, and agrees on them.
        n: number of independent observations, at least 1; an effective number need not be whole.
        level: coverage, 0..1.

    Raises:
        InputError: no observations, or successes outside 0..n.

    Source: Wilson 1927, doi 10.2307/2276774.
    """
    check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wilson: {successes} of {n} is not a proportion; need 0 <= successes <= n, n >= 1")
    z = float(ndtri(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    # At the edges the formula gives the edge exactly; rounding must not step over it.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def percentile_interval(draws: ArrayLike, level: float = LEVEL) -> Interval:
    """The central `level` of bootstrap draws `(B,)`; draws that are NaN (an empty group) are left out."""
    check_level(level)
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InputError("percentile_interval: every draw is empty; there are too few observations")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
