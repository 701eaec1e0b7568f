"""Bootstraps that draw whole clusters, as a matrix product of resampling counts with per-cluster sums.

scipy's `stats.bootstrap` draws single rows, and calls a statistic for each resample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safepref.errors import InputError
from safepref.statistics.base import DRAWS, LEVEL, Estimate, Floats, Labels, codes, floats
from safepref.statistics.intervals import percentile_interval, wilson

_CHUNK_CELLS = 4_000_000
"""Cells of one block of resampling counts: 32 MB, whatever the number of clusters and draws."""


def _resampling_counts(clusters: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Blocks `(b, C)` that say how often each cluster was drawn; together `draws` rows, equal for a seed."""
    rng = np.random.default_rng(seed)
    block = max(1, _CHUNK_CELLS // clusters)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        picks = rng.integers(clusters, size=(size, clusters))
        picks += np.arange(size)[:, None] * clusters
        yield np.bincount(picks.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.float64)


def resampled_means(
    values: ArrayLike,
    *,
    clusters: Labels | None = None,
    groups: Labels | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Floats:
    """Bootstrap draws of group means: whole clusters are resampled with replacement.

    Args:
        values: `(N,)` or `(N, V)`; the V columns (say, two models on the same prompts) share each resample,
            so that their differences are paired.
        clusters: `(N,)` labels of what is resampled as one; None takes every row for itself.
        groups: `(N,)` labels of the groups whose means are wanted, in order of first appearance; None is one.
        draws: number of resamples B.
        seed: equal seeds give equal draws.

    Returns:
        `(B, G, V)`, NaN where a resample holds nothing of a group.

    Raises:
        InputError: no values, NaN, or labels that do not fit.
    """
    table = floats(values, "values")
    columns = table.reshape(len(table), -1)
    n, width = columns.shape
    if draws < 1:
        raise InputError(f"draws: {draws} resamples; give at least 1")
    cluster, n_clusters = codes(clusters, n, "clusters")
    group, n_groups = codes(groups, n, "groups") if groups is not None else (np.zeros(n, dtype=np.intp), 1)
    cell = cluster * n_groups + group
    counts = np.bincount(cell, minlength=n_clusters * n_groups).reshape(n_clusters, n_groups)
    sums = np.stack(
        [np.bincount(cell, columns[:, v], minlength=n_clusters * n_groups) for v in range(width)], axis=-1
    ).reshape(n_clusters, n_groups * width)
    out = np.empty((draws, n_groups, width))
    at = 0
    for weights in _resampling_counts(n_clusters, draws, seed):
        total = (weights @ sums).reshape(-1, n_groups, width)
        size = (weights @ counts)[:, :, None]
        with np.errstate(invalid="ignore"):
            out[at : at + len(weights)] = np.where(size > 0, total / np.maximum(size, 1), np.nan)
        at += len(weights)
    return out


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: Labels | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The mean of `(N,)` values with its percentile interval, resampled by cluster.

    Source: Efron and Tibshirani 1993, chapter 13; clusters: Cameron, Gelbach and Miller 2008.
    """
    array = floats(values, "values")
    means = resampled_means(array, clusters=clusters, draws=draws, seed=seed)[:, 0, 0]
    return Estimate(float(array.mean()), percentile_interval(means, level), len(array))


def effective_number(
    values: ArrayLike, *, clusters: Labels | None = None, draws: int = DRAWS, seed: int = 0
) -> float:
    """How many independent rows the share of ones among `(N,)` zeros and ones is worth, 1..N.

    N divided by the design effect: the variance of the cluster bootstrap over that of independent rows. Where
    all values are alike, which no resample can vary, each of the C clusters counts as one row. The
    bootstrap's variance is (C - 1) / C of what it estimates, which is made up for.

    Source: Rao and Scott 1992, doi 10.2307/2532311.
    """
    array = floats(values, "values")
    n_clusters = codes(clusters, len(array), "clusters")[1]
    share = float(array.mean())
    if share in (0.0, 1.0) or n_clusters < 2:
        return float(n_clusters)
    drawn = resampled_means(array, clusters=clusters, draws=draws, seed=seed)[:, 0, 0]
    variance = float(drawn.var()) * n_clusters / (n_clusters - 1)
    worth = share * (1.0 - share) / variance if variance > 0 else math.inf
    return min(float(len(array)), max(1.0, worth))


def proportion(
    values: ArrayLike,
    *,
    clusters: Labels | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The share of ones among `(N,)` zeros and ones.

    Wilson's interval where every row is its own cluster; the cluster bootstrap where rows share clusters,
    and then, if all rows are equal (which no resample can vary), Wilson's with the number of clusters for n.
    """
    array = floats(values, "values")
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError("proportion: values other than 0 and 1; use bootstrap_mean for scores")
    n_clusters = codes(clusters, len(array), "clusters")[1]
    value = float(array.mean())
    if n_clusters == len(array):
        return Estimate(value, wilson(float(array.sum()), len(array), level), len(array))
    if value in (0.0, 1.0):
        return Estimate(value, wilson(value * n_clusters, n_clusters, level), len(array))
    return bootstrap_mean(array, clusters=clusters, level=level, draws=draws, seed=seed)
