"""Two models on the same rows: the exact McNemar test and the paired cluster bootstrap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from safepref.errors import InputError
from safepref.statistics.base import DRAWS, LEVEL, Estimate, Floats, Labels, codes, floats
from safepref.statistics.bootstrap import resampled_means
from safepref.statistics.intervals import percentile_interval


class McNemar(NamedTuple):
    """Exact McNemar test: rows that only the first got right, only the second, and the two-sided p."""

    only_first: int
    only_second: int
    p_value: float

    @property
    def p_above(self) -> float:
        """One-sided p of "the second is no better": small where it is shown to be better."""
        return self._tail(self.only_first)

    @property
    def p_below(self) -> float:
        """One-sided p of "the second is no worse": small where it is shown to be worse."""
        return self._tail(self.only_second)

    def _tail(self, at_most: int) -> float:
        return float(stats.binom.cdf(at_most, self.only_first + self.only_second, 0.5))


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact two-sided McNemar test of two 0/1 vectors `(N,)` on the same rows.

    It takes rows for independent: with several variants of a request, give one variant at a time.

    Source: McNemar 1947; exact binomial form.
    """
    a, b = floats(first, "first"), floats(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"mcnemar: {a.shape} against {b.shape}; both must be the same rows")
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InputError("mcnemar: values other than 0 and 1; use paired_difference for scores")
    only_first = int(((a == 1) & (b == 0)).sum())
    only_second = int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p = float(stats.binomtest(only_second, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p)


def group_row_weights(
    groups: Labels | None, group_weights: Mapping[Hashable, float] | None, n: int
) -> Floats:
    """Weight `(N,)` of each row in a weighted mean of its groups' means; together 1.

    Raises:
        InputError: a group without a weight, a negative weight, or weights that are all 0.
    """
    if groups is None:
        return np.full(n, 1.0 / n)
    group, n_groups = codes(groups, n, "groups")
    names = list(dict.fromkeys(groups))
    weights = np.ones(n_groups)
    if group_weights is not None:
        missing = [name for name in names if name not in group_weights]
        if missing:
            raise InputError(f"group_weights: no weight for group {missing[0]!r}; give one for each group")
        weights = np.array([group_weights[name] for name in names], dtype=np.float64)
        if not (weights >= 0).all() or weights.sum() <= 0:
            raise InputError(f"group_weights: {weights.tolist()}; none may be negative, nor all be 0")
    weights = weights / weights.sum()
    return np.asarray((weights / np.bincount(group, minlength=n_groups))[group])


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: Labels | None = None,
    groups: Labels | None = None,
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
    a, b = floats(first, "first"), floats(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"paired_difference: {a.shape} against {b.shape}; both must be the same rows")
    rows = group_row_weights(groups, group_weights, len(a))
    resampled = resampled_means(
        np.stack([a, b], axis=1), clusters=clusters, groups=groups, draws=draws, seed=seed
    )
    group = codes(groups, len(a), "groups")[0] if groups is not None else np.zeros(len(a), dtype=np.intp)
    shares = np.bincount(group, rows)
    differences = (resampled[:, :, 1] - resampled[:, :, 0]) @ shares
    return Estimate(float(rows @ (b - a)), percentile_interval(differences, level), len(a))
