"""What two models' results on the same prompts say about their difference, variants of a prompt included."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import ndtri

from safepref.errors import InputError
from safepref.statistics.base import DRAWS, LEVEL, Floats, Interval, Labels, codes, floats
from safepref.statistics.matched_score import MatchedScore
from safepref.statistics.paired import McNemar, group_row_weights, mcnemar, paired_difference

PERMUTATIONS = 9999


class SignFlip(NamedTuple):
    """One-sided p values of a cluster permutation test: that the sum is above 0, and that it is below."""

    above: float
    below: float


def sign_flip(sums: ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = 0) -> SignFlip:
    """Cluster permutation test: swapping the two models within a cluster flips the sign of its difference.

    Exact where the two models are exchangeable within each cluster, and in large samples where only the mean
    difference is 0. All flips are counted where there are no more than `permutations`; else so many are
    drawn, and the data count as one more (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).

    Args:
        sums: `(C,)` the clusters' summed differences; those of 0 do not matter.
        permutations: most flips that are looked at.
        seed: of the drawn flips.
    """
    values = floats(sums, "sums")
    values = values[values != 0]
    if values.size == 0:
        return SignFlip(1.0, 1.0)
    if values.size == 1:  # scipy permutes no single observation
        return SignFlip(0.5, 1.0) if values[0] > 0 else SignFlip(1.0, 0.5)
    found = stats.permutation_test(
        (values,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    flipped, seen = found.null_distribution, values.sum()
    # Sums of the same numbers in another order differ in their last digits.
    slack = 1e-9 * np.abs(values).sum()
    drawn = 0 if 2**values.size <= permutations else 1
    above, below = (np.count_nonzero(flipped >= seen - slack), np.count_nonzero(flipped <= seen + slack))
    total = len(flipped) + drawn
    return SignFlip((above + drawn) / total, (below + drawn) / total)


@dataclass(frozen=True, slots=True)
class PairedEvidence:
    """The difference second minus first, what it may be, and tests of it against any border.

    `first` and `second` are the means that `value` is the difference of; `n` rows in `clusters` clusters;
    `up` and `down` the weighted shares gained and lost; `score` the score method with the effective number of
    rows; `flips` the cluster permutation test; `exact` McNemar's test, None unless the rows are independent
    yes-or-no results of one group.
    """

    first: float
    second: float
    value: float
    interval: Interval
    n: int
    clusters: int
    score: MatchedScore
    flips: SignFlip
    exact: McNemar | None

    def p_above(self, delta: float) -> float:
        """One-sided p of "the true difference is at most `delta`".

        At 0 the test is exact: McNemar's on independent rows, the cluster permutation on others. Elsewhere it
        is the score test.
        """
        if delta == 0:
            return self.exact.p_above if self.exact is not None else self.flips.above
        return self.score.p_above(delta)

    def p_below(self, delta: float) -> float:
        """One-sided p of "the true difference is at least `delta`"; see `p_above`."""
        if delta == 0:
            return self.exact.p_below if self.exact is not None else self.flips.below
        return self.score.p_below(delta)

    def clusters_needed(
        self, delta: float, alpha: float, power: float = 0.8, *, if_equal: bool = False
    ) -> int | None:
        """Clusters like these that would show on which side of `delta` the difference lies.

        Were the difference seen the true one, or with `if_equal` were there none and as many rows differed:
        with probability `power` at the one-sided level `alpha`; more than there are now. None where that
        difference lies on the border.
        """
        half = (self.score.up + self.score.down) / 2
        assumed = MatchedScore(half, half, self.score.n) if if_equal else self.score
        rows = assumed.rows_needed(delta, alpha, power)
        if rows is None:
            return None
        return max(math.ceil(rows / self.score.n * self.clusters), self.clusters + 1)


def paired_evidence(
    first: ArrayLike,
    second: ArrayLike,
    *,
    clusters: Labels | None = None,
    groups: Labels | None = None,
    group_weights: Mapping[Hashable, float] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> PairedEvidence:
    """Everything about two models' values on the same rows.

    The interval is on either side the wider one of the paired cluster bootstrap and of the score method: near
    0 and 1, and where hardly any row differs, a bootstrap's is too narrow.

    Args:
        first, second: `(N,)` values in 0..1 of the two models on the same prompts, in the same order.
        clusters: base prompts; None takes rows for independent.
        groups: with it the means are weighted means of the groups' means, as the global score's are.
        group_weights: weight of each group; None weighs all alike.
        level: coverage of the interval, 0..1.
        draws: bootstrap resamples.
        permutations: most sign flips of the permutation test.
        seed: of both.

    Raises:
        InputError: lengths differ, values outside 0..1, or a group without a weight.
    """
    a, b = floats(first, "first"), floats(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"paired_evidence: {a.shape} against {b.shape}; both must be the same rows")
    for name, side in (("first", a), ("second", b)):
        if side.min() < 0 or side.max() > 1:
            raise InputError(f"{name}: values from {side.min():g} to {side.max():g}; rates lie in 0..1")
    weights = group_row_weights(groups, group_weights, len(a))
    cluster, n_clusters = codes(clusters, len(a), "clusters")
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    single = n_clusters == len(a) and groups is None
    steps = weights * (b - a)
    up, down = float(steps[steps > 0].sum()), float(-steps[steps < 0].sum())
    sums = np.bincount(cluster, steps, minlength=n_clusters).astype(np.float64)
    shares = np.bincount(cluster, weights, minlength=n_clusters).astype(np.float64)
    effective = effective_rows(sums, shares, up + down, weights if binary else None, level)
    score = MatchedScore(up, down, effective)
    drawn = paired_difference(
        a,
        b,
        clusters=clusters,
        groups=groups,
        group_weights=group_weights,
        level=level,
        draws=draws,
        seed=seed,
    )
    mine = score.interval(level)
    interval = Interval(min(mine.low, drawn.interval.low), max(mine.high, drawn.interval.high))
    return PairedEvidence(
        first=float(weights @ a),
        second=float(weights @ b),
        value=drawn.value,
        interval=interval,
        n=len(a),
        clusters=n_clusters,
        score=score,
        flips=sign_flip(sums, permutations=permutations, seed=seed),
        exact=mcnemar(a, b) if binary and single else None,
    )


def effective_rows(
    sums: Floats, shares: Floats, discordant: float, row_weights: Floats | None, level: float = LEVEL
) -> float:
    """How many independent rows the clusters are worth for the variance of their summed differences.

    That is the variance of one independent row divided by the one between clusters (the design effect of Rao
    and Scott 1992, doi 10.2307/2532311), lowered by Student's quantile with as many degrees of freedom as
    clusters differ, less one (Korn and Graubard 1998, Survey Methodology 24:193-201). It is never below what
    the heaviest cluster allows if all rows of a cluster went together; that number is taken where fewer than
    two clusters differ.

    Args:
        sums: `(C,)` weighted differences summed over each cluster.
        shares: `(C,)` weight of each cluster; together 1.
        discordant: weighted share of rows that differ (of graded values, the mean absolute difference).
        row_weights: `(N,)` weights of yes-or-no rows, which bound the number from above; None for graded
            values, whose differences are smaller than a whole and so vary less.
        level: coverage that the quantile is taken at.
    """
    floor = 1.0 / float(shares.max())
    differing = int(np.count_nonzero(sums))
    if differing < 2:
        return floor
    total = float(sums.sum())
    between = float(((sums - shares * total) ** 2).sum()) * len(sums) / (len(sums) - 1)
    if between <= 0:
        return floor
    tail = 0.5 + level / 2
    shrink = float(ndtri(tail) / stats.t.ppf(tail, differing - 1)) ** 2
    found = shrink * max(0.0, discordant - total * total) / between
    if row_weights is not None:
        found = min(found, 1.0 / float((row_weights**2).sum()))
    return max(found, floor)
