"""Averages over rows (micro) and over categories (macro)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from safepref.statistics.base import DRAWS, LEVEL, Interval, Labels, codes, floats
from safepref.statistics.bootstrap import resampled_means
from safepref.statistics.intervals import percentile_interval, wilson


def micro(values: ArrayLike) -> float:
    """The mean over all rows: `(sum of values) / N`."""
    return float(floats(values, "values").mean())


def macro(values: ArrayLike, groups: Labels) -> float:
    """The mean of the groups' means: every category counts the same, however many rows it has."""
    array = floats(values, "values")
    group, n_groups = codes(groups, len(array), "groups")
    sums = np.bincount(group, array, minlength=n_groups)
    return float((sums / np.bincount(group, minlength=n_groups)).mean())


def macro_interval(
    values: ArrayLike,
    groups: Labels,
    *,
    clusters: Labels | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of `macro` of values 0..1: on either side the wider one of two.

    One is the percentile bootstrap of whole clusters, in which a group that a draw misses is left out of its
    mean. It cannot vary where all values are alike and is too narrow near that, so the other is Wilson's for
    as many rows as have the same variance where all groups have one rate: G^2 / sum(1 / clusters in group).
    """
    array = floats(values, "values")
    group, n_groups = codes(groups, len(array), "groups")
    cluster = codes(clusters, len(array), "clusters")[0]
    means = resampled_means(array, clusters=clusters, groups=groups, draws=draws, seed=seed)[:, :, 0]
    drawn = percentile_interval(np.nanmean(means, axis=1), level)
    sizes = np.bincount(np.unique(np.stack([group, cluster], 1), axis=0)[:, 0], minlength=n_groups)
    worth = n_groups**2 / float((1 / sizes).sum())
    edge = wilson(macro(array, groups) * worth, worth, level)
    return Interval(min(drawn.low, edge.low), max(drawn.high, edge.high))
