"""Averages over rows (micro) and over categories (macro)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safepref.statistics.base import Labels, codes, floats


def micro(values: ArrayLike) -> float:
    """The mean over all rows: `(sum of values) / N`."""
    return float(floats(values, "values").mean())


def macro(values: ArrayLike, groups: Labels) -> float:
    """The mean of the groups' means: every category counts the same, however many rows it has."""
    array = floats(values, "values")
    group, n_groups = codes(groups, len(array), "groups")
    sums = np.bincount(group, array, minlength=n_groups)
    return float((sums / np.bincount(group, minlength=n_groups)).mean())
