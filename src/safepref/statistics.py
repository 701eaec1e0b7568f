"""Intervals, paired tests, and rates corrected for the judge's own error.

Everything is vectorised numpy; a bootstrap is a matrix product of resampling counts with per-cluster sums.
Clusters are the unit of resampling: the variants of one request (plain and under each attack) are not
independent observations, so they are drawn together. Nothing here knows prompts, judges or models.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from safepref.errors import InputError

Floats = NDArray[np.float64]

LEVEL = 0.95
DRAWS = 2000
_CHUNK_CELLS = 4_000_000
"""Cells of one block of resampling counts: 32 MB, whatever the number of clusters and draws."""


class Interval(NamedTuple):
    """A two-sided interval; serialises as `[low, high]`."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A value with its interval and the number of observations behind it."""

    value: float
    interval: Interval
    n: int


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(f"level: {level} is not between 0 and 1; use for example 0.95")


def _floats(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise InputError(f"{what}: no observations; give at least one")
    if not np.isfinite(array).all():
        raise InputError(f"{what}: holds NaN or infinity; leave unscored rows out before computing")
    return array


def _codes(
    labels: Sequence[Hashable] | NDArray[Any] | None, n: int, what: str
) -> tuple[NDArray[np.intp], int]:
    """Labels as integers 0..k-1 in order of first appearance; without labels every row is its own."""
    if labels is None:
        return np.arange(n), n
    if len(labels) != n:
        raise InputError(f"{what}: {len(labels)} labels for {n} values; give one for each value")
    index: dict[Hashable, int] = {}
    codes = np.fromiter((index.setdefault(label, len(index)) for label in labels), dtype=np.intp, count=n)
    return codes, len(index)


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a proportion; it keeps its coverage near 0 and 1, where bootstraps fail.

    Args:
        successes: how many of `n`, 0..n.
        n: number of independent observations, at least 1.
        level: coverage, 0..1.

    Raises:
        InputError: no observations, or successes outside 0..n.

    Source: Wilson 1927, doi 10.2307/2276774.
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wilson: {successes} of {n} is not a proportion; need 0 <= successes <= n, n >= 1")
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    # At the edges the formula gives the edge exactly; rounding must not step over it.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def percentile_interval(draws: ArrayLike, level: float = LEVEL) -> Interval:
    """The central `level` of bootstrap draws `(B,)`; draws that are NaN (an empty group) are left out."""
    _check_level(level)
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InputError("percentile_interval: every draw is empty; there are too few observations")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


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
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
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
    table = _floats(values, "values")
    columns = table.reshape(len(table), -1)
    n, width = columns.shape
    if draws < 1:
        raise InputError(f"draws: {draws} resamples; give at least 1")
    cluster, n_clusters = _codes(clusters, n, "clusters")
    group, n_groups = _codes(groups, n, "groups") if groups is not None else (np.zeros(n, dtype=np.intp), 1)
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
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The mean of `(N,)` values with its percentile interval, resampled by cluster.

    Source: Efron and Tibshirani 1993, chapter 13; clusters: Cameron, Gelbach and Miller 2008.
    """
    array = _floats(values, "values")
    means = resampled_means(array, clusters=clusters, draws=draws, seed=seed)[:, 0, 0]
    return Estimate(float(array.mean()), percentile_interval(means, level), len(array))


def proportion(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The share of ones among `(N,)` zeros and ones.

    Wilson's interval where every row is its own cluster; the cluster bootstrap where rows share clusters,
    and then, if all rows are equal (which no resample can vary), Wilson's with the number of clusters for n.
    """
    array = _floats(values, "values")
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError("proportion: values other than 0 and 1; use bootstrap_mean for scores")
    n_clusters = _codes(clusters, len(array), "clusters")[1]
    value = float(array.mean())
    if n_clusters == len(array):
        return Estimate(value, wilson(float(array.sum()), len(array), level), len(array))
    if value in (0.0, 1.0):
        return Estimate(value, wilson(value * n_clusters, n_clusters, level), len(array))
    return bootstrap_mean(array, clusters=clusters, level=level, draws=draws, seed=seed)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: Sequence[Hashable] | NDArray[Any] | None = None,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    group_weights: Mapping[Hashable, float] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Mean of `second` minus mean of `first` on the same rows, with a paired, clustered percentile interval.

    Args:
        first, second: `(N,)` scores of the two models on the same prompts, in the same order.
        clusters: base prompts.
        groups: with it the difference is of weighted group means instead of pooled ones, as the global
            score is (half plain, half the mean over attack families).
        group_weights: weight of each group; None weighs all alike.

    Raises:
        InputError: lengths differ, NaN, or a group without a weight.
    """
    a, b = _floats(first, "first"), _floats(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"paired_difference: {a.shape} against {b.shape}; both must be the same rows")
    names: list[Hashable] = list(dict.fromkeys(groups)) if groups is not None else [None]
    group = _codes(groups, len(a), "groups")[0] if groups is not None else np.zeros(len(a), dtype=np.intp)
    weights = np.ones(len(names))
    if group_weights is not None:
        missing = [name for name in names if name not in group_weights]
        if missing:
            raise InputError(f"group_weights: no weight for group {missing[0]!r}; give one for each group")
        weights = np.array([group_weights[name] for name in names], dtype=np.float64)
    weights = weights / weights.sum()
    pair = np.stack([a, b], axis=1)
    size = np.bincount(group, minlength=len(names))
    means = np.stack([np.bincount(group, pair[:, v], minlength=len(names)) / size for v in (0, 1)], axis=1)
    resampled = resampled_means(pair, clusters=clusters, groups=groups, draws=draws, seed=seed)
    differences = (resampled[:, :, 1] - resampled[:, :, 0]) @ weights
    value = float(weights @ (means[:, 1] - means[:, 0]))
    return Estimate(value, percentile_interval(differences, level), len(a))


class McNemar(NamedTuple):
    """Exact McNemar test: rows that only the first got right, only the second, and the two-sided p."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact two-sided McNemar test of two 0/1 vectors `(N,)` on the same rows.

    It takes rows for independent: with several variants of a request, give one variant at a time.

    Source: McNemar 1947; exact binomial form.
    """
    a, b = _floats(first, "first"), _floats(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"mcnemar: {a.shape} against {b.shape}; both must be the same rows")
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InputError("mcnemar: values other than 0 and 1; use paired_difference for scores")
    only_first = int(((a == 1) & (b == 0)).sum())
    only_second = int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p = float(stats.binomtest(only_second, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p)


def micro(values: ArrayLike) -> float:
    """The mean over all rows: `(sum of values) / N`."""
    return float(_floats(values, "values").mean())


def macro(values: ArrayLike, groups: Sequence[Hashable] | NDArray[Any]) -> float:
    """The mean of the groups' means: every category counts the same, however many rows it has."""
    array = _floats(values, "values")
    group, n_groups = _codes(groups, len(array), "groups")
    sums = np.bincount(group, array, minlength=n_groups)
    return float((sums / np.bincount(group, minlength=n_groups)).mean())


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance, any number of classes; None where chance agreement is complete.

    Source: Cohen 1960, doi 10.1177/001316446002000104.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"cohen_kappa: {len(first)} against {len(second)} ratings; both need the same rows")
    codes, k = _codes([*first, *second], 2 * len(first), "ratings")
    table = np.zeros((k, k))
    np.add.at(table, (codes[: len(first)], codes[len(first) :]), 1.0)
    table /= table.sum()
    expected = float(table.sum(axis=1) @ table.sum(axis=0))
    if expected >= 1.0 - 1e-12:
        return None
    return (float(np.trace(table)) - expected) / (1.0 - expected)


@dataclass(frozen=True, slots=True)
class JudgeError:
    """A judge's hits on human labels: sensitivity is hits / positives, specificity rejections / negatives."""

    hits: int
    positives: int
    rejections: int
    negatives: int

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.positives and self.positives > 0):
            raise InputError(f"sensitivity: {self.hits} of {self.positives}; calibrate on labelled positives")
        if not (0 <= self.rejections <= self.negatives and self.negatives > 0):
            raise InputError(
                f"specificity: {self.rejections} of {self.negatives}; calibrate on labelled negatives"
            )

    @classmethod
    def from_rates(cls, sensitivity: float, specificity: float, positives: int, negatives: int) -> JudgeError:
        """From measured rates 0..1 and the number of labelled rows behind each."""
        for name, rate in (("sensitivity", sensitivity), ("specificity", specificity)):
            if not 0.0 <= rate <= 1.0:
                raise InputError(f"{name}: {rate} is not between 0 and 1; give a measured rate")
        return cls(round(sensitivity * positives), positives, round(specificity * negatives), negatives)

    @property
    def sensitivity(self) -> float:
        """Share of truly harmful answers that the judge calls harmful."""
        return self.hits / self.positives

    @property
    def specificity(self) -> float:
        """Share of truly harmless answers that the judge calls harmless."""
        return self.rejections / self.negatives


class Corrected(NamedTuple):
    """A rate corrected for judge error, or None with the reason why no correction is possible."""

    value: float | None
    interval: Interval | None
    why: str


def rogan_gladen(observed: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """True rate from an observed one: `(observed + Sp - 1) / (Se + Sp - 1)`, clipped to 0..1.

    NaN where Se + Sp <= 1, that is where the judge is no better than chance.

    Source: Rogan and Gladen 1978, doi 10.1093/oxfordjournals.aje.a112510.
    """
    p, se, sp = (np.asarray(x, dtype=np.float64) for x in (observed, sensitivity, specificity))
    youden = se + sp - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(youden > 1e-9, np.clip((p + sp - 1.0) / youden, 0.0, 1.0), np.nan)


def corrected_rate(
    observed: float,
    judge: JudgeError,
    *,
    n: int,
    draws: ArrayLike | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Corrected:
    """A harmful rate corrected for the judge, with an interval that carries the judge's own uncertainty.

    Args:
        observed: share of scored answers that the judge called harmful, 0..1.
        judge: its measured hits on human labels.
        n: independent observations (clusters) behind `observed`.
        draws: `(B,)` bootstrap draws of `observed`; None, or draws that do not vary, are replaced by the
            posterior of a proportion of n under Jeffreys' prior.

    Returns:
        `Corrected(None, None, why)` where the correction means nothing: the judge's Se + Sp is not clearly
        above 1, or the observed rate lies below what its false alarms alone would give.

    Source: Rogan and Gladen 1978; intervals by drawing Se, Sp (Jeffreys posteriors) and the rate together,
    as Lang and Reiczigel 2014 (doi 10.1016/j.prevetmed.2013.09.015) ask.
    """
    if not 0.0 <= observed <= 1.0 or n < 1:
        raise InputError(f"corrected_rate: {observed} of n={n} is not a rate; need 0 <= rate <= 1, n >= 1")
    rng = np.random.default_rng(seed)
    sampled = np.asarray(draws if draws is not None else [observed], dtype=np.float64)
    sampled = sampled[np.isfinite(sampled)]
    if sampled.size < 2 or np.ptp(sampled) == 0:
        sampled = rng.beta(observed * n + 0.5, (1 - observed) * n + 0.5, size=DRAWS)
    size = len(sampled)
    se = rng.beta(judge.hits + 0.5, judge.positives - judge.hits + 0.5, size=size)
    sp = rng.beta(judge.rejections + 0.5, judge.negatives - judge.rejections + 0.5, size=size)
    youden = judge.sensitivity + judge.specificity - 1.0
    if youden < 0.05 or percentile_interval(se + sp - 1.0, level).low <= 0.0:
        return Corrected(
            None, None, f"the judge is not clearly better than chance (Se + Sp - 1 = {youden:.2f})"
        )
    false_alarms = wilson(judge.negatives - judge.rejections, judge.negatives, level)
    if observed < false_alarms.low:
        return Corrected(
            None,
            None,
            f"the raw harmful rate {observed:.3f} lies below the judge's false-alarm rate "
            f"[{false_alarms.low:.3f}, {false_alarms.high:.3f}] on its calibration set",
        )
    value = float(rogan_gladen(observed, judge.sensitivity, judge.specificity))
    return Corrected(value, percentile_interval(rogan_gladen(sampled, se, sp), level), "")
