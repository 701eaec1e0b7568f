"""Paired rates: published values, closed forms, exact enumeration, and oracles that share no code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from safepref import statistics as s
from safepref.errors import InputError
from safepref.statistics.evidence import effective_rows

Z = stats.norm.ppf(0.975)


def score(up: int, down: int, n: int) -> s.MatchedScore:
    return s.MatchedScore(up / n, down / n, n)


def test_the_score_interval_has_published_values() -> None:
    # Bentur 2009 (1 and 7 of 21 differ), Tango's interval as given by Fagerland, Lydersen and Laake 2014
    # (doi 10.1002/sim.6148).
    assert score(1, 7, 21).interval() == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 5, 64, 1000])
def test_no_row_that_differs_is_not_certain(n: int) -> None:
    edge = Z**2 / (n + Z**2)
    assert score(0, 0, n).interval() == pytest.approx((-edge, edge), abs=1e-7)
    assert score(0, 0, n).p_above(-0.05) == pytest.approx(stats.norm.sf(math.sqrt(n * 0.05 / 0.95)))


tables = st.integers(1, 200).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda up: st.integers(0, n - up).map(lambda down: (up, down, n)))
)


@given(tables, st.floats(-0.9, 0.9))
@settings(max_examples=80, deadline=None)
def test_the_spread_is_the_one_of_the_likeliest_shares(table: tuple[int, int, int], delta: float) -> None:
    up, down, n = table

    def minus_log_likelihood(q: float) -> float:
        shares = (q + delta, q, 1 - 2 * q - delta)
        return -sum(
            k * math.log(max(p, 1e-300)) for k, p in zip((up, down, n - up - down), shares, strict=True)
        )

    low, high = max(0.0, -delta), (1 - delta) / 2
    best = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), options={"xatol": 1e-10})
    wanted = math.sqrt(max(0.0, 2 * best.x + delta - delta**2))
    assert score(up, down, n).spread(delta) == pytest.approx(wanted, abs=2e-3)


@given(tables)
@settings(max_examples=60, deadline=None)
def test_the_interval_is_what_the_test_does_not_reject(table: tuple[int, int, int]) -> None:
    mine, mirrored = score(*table), score(table[1], table[0], table[2])
    low, high = mine.interval()
    assert -1 <= low <= mine.difference <= high <= 1
    assert mirrored.interval() == pytest.approx((-high, -low), abs=1e-7)
    for edge, p in ((low, mine.p_above), (high, mine.p_below)):
        if abs(edge) < 1 - 1e-6:
            assert p(edge) == pytest.approx(0.025, abs=1e-5)


def test_at_no_difference_the_score_is_mcnemars() -> None:
    assert score(9, 4, 50).z(0.0) == pytest.approx((9 - 4) / math.sqrt(9 + 4))


@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.05, 0.10), (0.2, 0.1)])
def test_the_intervals_exact_coverage(up: float, down: float) -> None:
    n, covered = 40, 0.0
    chance = stats.multinomial(n, [up, down, 1 - up - down])
    for k in range(n + 1):
        for m in range(n - k + 1):
            weight = chance.pmf([k, m, n - k - m])
            if weight > 1e-9:
                low, high = score(k, m, n).interval()
                covered += weight * (low <= up - down <= high)
    assert 0.94 <= covered <= 0.995


@pytest.mark.parametrize(("up", "down", "border"), [(0.06, 0.06, -0.05), (0.15, 0.05, 0.0)])
def test_so_many_rows_have_the_power_they_promise(up: float, down: float, border: float) -> None:
    needed = math.ceil(s.MatchedScore(up, down, 10).rows_needed(border, 0.025, 0.8) or 0)
    chance = stats.multinomial(needed, [up, down, 1 - up - down])
    most = int(needed * 0.4)
    grid = np.array([(k, m, needed - k - m) for k in range(most) for m in range(most)])
    weights = chance.pmf(grid)
    power = sum(
        w
        for (k, m, _), w in zip(grid, weights, strict=True)
        if w > 1e-8 and score(k, m, needed).z(border) > Z
    )
    assert power == pytest.approx(0.8, abs=0.04)


def test_on_the_border_no_number_is_enough() -> None:
    assert score(5, 5, 100).rows_needed(0.0, 0.025) is None


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_flips_of_single_rows_are_mcnemars_exact_tails(steps: list[float]) -> None:
    steps = [*steps, 1.0]
    exact = s.McNemar(steps.count(-1.0), steps.count(1.0), 1.0)
    got = s.sign_flip(steps)
    assert got == pytest.approx((exact.p_above, exact.p_below))


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 2)), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_flips_equal_their_enumeration(sums: list[float]) -> None:
    flipped = [
        sum(sign * x for sign, x in zip(signs, sums, strict=True))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    above = np.mean([value >= sum(sums) - 1e-9 for value in flipped])
    below = np.mean([value <= sum(sums) + 1e-9 for value in flipped])
    assert s.sign_flip(sums) == pytest.approx((above, below))


def test_drawn_flips_are_near_the_exact_ones_and_never_zero() -> None:
    sums = np.random.default_rng(0).normal(0.2, 1.0, 12)
    exact, drawn = s.sign_flip(sums), s.sign_flip(sums, permutations=2000, seed=1)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert s.sign_flip(np.ones(60), permutations=999).above == 1 / 1000


def test_mcnemars_tails_are_the_binomials() -> None:
    got = s.mcnemar([1] * 6 + [0] * 3, [0] * 6 + [1] * 3)
    assert got.p_above == pytest.approx(stats.binomtest(3, 9, alternative="greater").pvalue)
    assert got.p_below == pytest.approx(stats.binomtest(3, 9, alternative="less").pvalue)


def test_effective_rows_lie_between_clusters_and_rows() -> None:
    rng = np.random.default_rng(3)
    steps = rng.choice([-1.0, 0.0, 1.0], size=(200, 4), p=[0.1, 0.7, 0.2])
    weights = np.full(800, 1 / 800)
    shares = np.full(200, 1 / 200)
    alone = effective_rows(steps.sum(axis=1) / 800, shares, np.abs(steps).mean(), weights)
    assert alone == pytest.approx(800, rel=0.2)
    together = np.repeat(steps[:, :1], 4, axis=1)
    assert effective_rows(together.sum(axis=1) / 800, shares, np.abs(together).mean(), weights) == 200
    nothing = np.zeros(200)
    assert effective_rows(nothing, shares, 0.0, weights) == pytest.approx(200)


def test_copies_in_a_cluster_are_no_evidence() -> None:
    rng = np.random.default_rng(5)
    first, second = (rng.random(60) < 0.6).astype(float), (rng.random(60) < 0.7).astype(float)
    alone = s.paired_evidence(first, second, seed=2)
    copied = s.paired_evidence(
        np.repeat(first, 4), np.repeat(second, 4), clusters=np.repeat(np.arange(60), 4), seed=2
    )
    assert copied.interval == pytest.approx(alone.interval)
    assert copied.p_above(-0.1) == pytest.approx(alone.p_above(-0.1))
    assert copied.p_above(0.0) == pytest.approx(alone.p_above(0.0), abs=0.02)
    assert (copied.n, copied.clusters, copied.exact) == (240, 60, None)


def test_equal_answers_show_no_more_than_their_number() -> None:
    same = np.ones(40)
    got = s.paired_evidence(same, same, clusters=np.repeat(np.arange(20), 2))
    edge = Z**2 / (20 + Z**2)
    assert got.interval == pytest.approx((-edge, edge), abs=1e-7)
    assert got.p_above(0.0) == got.p_below(0.0) == 1.0
    assert got.p_above(-0.05) > 0.1
    needed = got.clusters_needed(-0.05, 0.025)
    assert needed is not None and 70 < needed < 200
    more = s.paired_evidence(np.ones(needed), np.ones(needed))
    assert more.p_above(-0.05) < 0.025


def simulate(prompts: int, up: float, down: float, together: float, rng: np.random.Generator):
    """Plain and two attacks of each prompt; `together` of the variants follow the prompt's own draw."""
    own = np.repeat(rng.random(prompts), 3)
    u = np.where(rng.random(3 * prompts) < together, own, rng.random(3 * prompts))
    first = np.where(u < up, 0.0, np.where(u > 1 - down, 1.0, rng.random(3 * prompts) < 0.5))
    second = np.where(u < up, 1.0, np.where(u > 1 - down, 0.0, first))
    groups = ["plain", "suffix", "jailbreak"] * prompts
    return first, second, np.repeat(np.arange(prompts), 3), groups


@pytest.mark.parametrize(
    ("prompts", "up", "down", "together"),
    [(30, 0.1, 0.1, 0.6), (80, 0.02, 0.07, 0.6), (80, 0.0, 0.05, 1.0), (80, 0.1, 0.15, 0.0)],
)
def test_clustered_intervals_cover_and_tests_hold_their_level(
    prompts: int, up: float, down: float, together: float
) -> None:
    rng = np.random.default_rng(11)
    true, repeats = up - down, 300
    covered = above = below = 0
    for trial in range(repeats):
        first, second, clusters, groups = simulate(prompts, up, down, together, rng)
        got = s.paired_evidence(
            first,
            second,
            clusters=clusters,
            groups=groups,
            group_weights={"plain": 2, "suffix": 1, "jailbreak": 1},
            draws=150,
            permutations=499,
            seed=trial,
        )
        covered += got.interval.low <= true <= got.interval.high
        above += got.p_above(true) <= 0.025
        below += got.p_below(true) <= 0.025
    # Upper 99.9 % points of 300 draws at the nominal rates.
    assert covered >= stats.binom.ppf(0.001, repeats, 0.95)
    assert max(above, below) <= stats.binom.ppf(0.999, repeats, 0.025)


def test_graded_values_have_intervals_that_cover() -> None:
    rng, covered = np.random.default_rng(2), 0
    for trial in range(200):
        level = rng.beta(1, 4, 60)
        first = np.clip(level + rng.normal(0, 0.1, 60), 0, 1)
        second = np.clip(level + 0.05 + rng.normal(0, 0.1, 60), 0, 1)
        got = s.paired_evidence(first, second, draws=200, permutations=99, seed=trial)
        true = 0.0451  # the mean of 4 million draws: clipping at 0 takes a little of the shift
        covered += got.interval.low <= true <= got.interval.high
        assert got.interval.high - got.interval.low < 0.12
    assert covered >= stats.binom.ppf(0.001, 200, 0.95)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: s.MatchedScore(0.6, 0.6, 10), "shares of a whole"),
        (lambda: s.paired_evidence([1], [1, 0]), "same rows"),
        (lambda: s.paired_evidence([2.0], [1.0]), "rates lie in 0..1"),
        (lambda: s.paired_evidence([1], [0], groups=["a"], group_weights={"a": 0}), "nor all be 0"),
        (lambda: s.sign_flip([]), "no observations"),
        (lambda: s.holm([0.5, 1.5]), "outside 0..1"),
    ],
)
def test_bad_input_is_one_clear_line(call, words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)
