import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safepref import statistics as s
from safepref.errors import InputError


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998 (doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_has_newcombes_published_values(successes, n, low, high):
    interval = s.wilson(successes, n)
    assert interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
@settings(max_examples=60, deadline=None)
def test_wilson_holds_the_rate_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    low, high = s.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    mirrored = s.wilson(n - k, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high))


@given(st.integers(1, 300), st.floats(0.5, 0.999), st.data())
@settings(max_examples=60, deadline=None)
def test_wilson_is_scipys_on_whole_numbers(n, level, data):
    k = data.draw(st.integers(0, n))
    scipys = stats.binomtest(k, n).proportion_ci(level, "wilson")
    assert s.wilson(k, n, level) == pytest.approx((scipys.low, scipys.high), abs=1e-9)


def test_bootstrap_of_a_mean_has_the_normal_width():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=900)
    got = s.bootstrap_mean(values, draws=4000, seed=3)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert got.value == pytest.approx(values.mean())
    assert got.interval.high - got.interval.low == pytest.approx(2 * half, rel=0.06)
    assert got == s.bootstrap_mean(values, draws=4000, seed=3)
    assert got != s.bootstrap_mean(values, draws=4000, seed=4)


def test_copies_in_a_cluster_add_no_evidence():
    base = (np.random.default_rng(0).random(60) < 0.4).astype(float)
    copied = np.repeat(base, 5)
    clusters = np.repeat(np.arange(60), 5)
    alone = s.bootstrap_mean(base, seed=7)
    together = s.bootstrap_mean(copied, clusters=clusters, seed=7)
    assert together.interval == pytest.approx(alone.interval)
    naive = s.bootstrap_mean(copied, seed=7).interval
    assert (naive.high - naive.low) < 0.6 * (together.interval.high - together.interval.low)


def test_rows_are_worth_what_the_clustered_bootstrap_says():
    base = (np.random.default_rng(0).random(200) < 0.4).astype(float)
    assert s.effective_number(base) == pytest.approx(200, rel=0.08)
    copied, clusters = np.repeat(base, 5), np.repeat(np.arange(200), 5)
    assert s.effective_number(copied, clusters=clusters) == pytest.approx(200, rel=0.08)
    # Where no resample can vary, every cluster counts as one; no row is worth more than itself.
    assert s.effective_number([1.0] * 12, clusters=[i // 4 for i in range(12)]) == 3
    assert s.effective_number([1, 0] * 50, clusters=[i // 2 for i in range(100)]) == 100
    assert s.effective_number([1, 0, 1], clusters=["a"] * 3) == 1


def test_unequal_clusters_use_the_ratio_of_sums():
    values, clusters = [1, 1, 1, 0], ["a", "a", "a", "b"]
    draws = s.resampled_means(values, clusters=clusters, draws=4000, seed=0)[:, 0, 0]
    seen, counts = np.unique(np.round(draws, 6), return_counts=True)
    assert seen == pytest.approx([0.0, 0.75, 1.0])
    assert counts / counts.sum() == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_groups_are_resampled_together_and_may_be_empty():
    draws = s.resampled_means(
        [1.0, 0.0, 1.0], clusters=["p", "p", "q"], groups=["plain", "attack", "plain"], draws=500, seed=1
    )
    assert draws.shape == (500, 2, 1)
    empty = np.isnan(draws[:, 1, 0])
    assert 0.15 < empty.mean() < 0.35
    assert (draws[~empty, 1, 0] == 0).all()
    assert s.percentile_interval(draws[:, 1, 0]) == (0.0, 0.0)


def test_chunks_do_not_change_the_number_or_the_mean_of_draws(monkeypatch):
    values = np.arange(40.0)
    monkeypatch.setattr("safepref.statistics.bootstrap._CHUNK_CELLS", 200)
    draws = s.resampled_means(values, draws=1003, seed=5)
    assert draws.shape == (1003, 1, 1)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.3)


def test_proportion_takes_wilson_when_rows_are_independent_or_all_equal():
    assert s.proportion([1, 1, 0, 1]).interval == s.wilson(3, 4)
    sure = s.proportion([1] * 12, clusters=[i // 4 for i in range(12)])
    assert sure.interval == s.wilson(3, 3)
    assert sure.interval.low < 0.6


def test_paired_difference_is_narrower_than_unpaired_and_exact_for_a_constant_shift():
    rng = np.random.default_rng(2)
    base = (rng.random(300) < 0.5).astype(float)
    better = base.copy()
    better[rng.choice(np.flatnonzero(base == 0), 40, replace=False)] = 1
    got = s.paired_difference(base, better, seed=1)
    assert got.value == pytest.approx(40 / 300)
    assert got.interval.low > 0.09 and got.interval.high < 0.18
    shift = s.paired_difference(base, base + 0.25, seed=1)
    assert shift.interval == pytest.approx((0.25, 0.25))


def test_paired_difference_weighs_groups_as_the_global_score_does():
    first = [0, 0, 0, 0, 1, 1]
    second = [1, 1, 1, 1, 1, 0]
    groups = ["plain"] * 4 + ["attack"] * 2
    even = s.paired_difference(first, second, groups=groups)
    assert even.value == pytest.approx((1.0 - 0.5) / 2)
    weighted = s.paired_difference(first, second, groups=groups, group_weights={"plain": 3, "attack": 1})
    assert weighted.value == pytest.approx(0.75 * 1.0 - 0.25 * 0.5)


def test_mcnemar_equals_the_binomial_by_hand():
    first = [1] * 10 + [0] * 4 + [1] * 6
    second = [1] * 10 + [1] * 3 + [0] * 1 + [0] * 6
    got = s.mcnemar(first, second)
    assert (got.only_first, got.only_second) == (6, 3)
    tail = sum(math.comb(9, k) for k in range(4)) / 2**9
    assert got.p_value == pytest.approx(2 * tail)
    assert s.mcnemar([1, 0], [1, 0]).p_value == 1.0


def test_micro_and_macro_differ_with_unequal_categories():
    values, groups = [1, 1, 1, 0], ["a", "a", "a", "b"]
    assert s.micro(values) == 0.75
    assert s.macro(values, groups) == 0.5


def test_a_macro_average_has_an_interval_that_knows_small_groups():
    rng = np.random.default_rng(0)
    big, small = (rng.random(400) < 0.8).astype(float), (rng.random(8) < 0.4).astype(float)
    values, groups = np.r_[big, small], ["big"] * 400 + ["small"] * 8
    low, high = s.macro_interval(values, groups)
    assert low < s.macro(values, groups) < high
    # Half of the small group's spread is most of the average's.
    half = 1.96 * math.sqrt(big.var() / 400 + small.var() / 8) / 2
    assert high - low == pytest.approx(2 * half, rel=0.2)
    # One group is a plain share.
    one = s.macro_interval(big, ["g"] * 400)
    assert one == pytest.approx(s.proportion(big).interval, abs=0.01)


def test_a_macro_average_of_equal_values_is_as_sure_as_its_groups_are_large():
    # Two groups of two and six clusters: 4 / (1/2 + 1/6) = 6 rows; copies within a cluster add none.
    groups, clusters = ["a"] * 2 + ["b"] * 6, list(range(8))
    assert s.macro_interval(np.ones(8), groups) == pytest.approx(s.wilson(6, 6))
    twice = s.macro_interval(np.ones(16), groups * 2, clusters=clusters * 2)
    assert twice == pytest.approx(s.wilson(6, 6))


def test_kappa_of_a_published_table():
    # Cohen 1960 as worked in Fleiss 1981: 20 both yes, 5 + 10 disagree, 15 both no; kappa .4.
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert s.cohen_kappa(first, second) == pytest.approx(0.4)
    assert s.cohen_kappa(["y"], ["y"]) is None


@given(st.floats(0, 1), st.floats(0.6, 1), st.floats(0.6, 1))
@settings(max_examples=60, deadline=None)
def test_rogan_gladen_undoes_the_judges_error(true, se, sp):
    observed = true * se + (1 - true) * (1 - sp)
    assert float(s.rogan_gladen(observed, se, sp)) == pytest.approx(true, abs=1e-6)


def test_rogan_gladen_clips_and_refuses_chance():
    assert float(s.rogan_gladen(0.05, 0.9, 0.9)) == 0.0
    assert float(s.rogan_gladen(0.95, 0.9, 0.9)) == 1.0
    assert np.isnan(s.rogan_gladen(0.5, 0.5, 0.5))


def test_corrected_interval_grows_with_the_judges_uncertainty():
    sharp = s.corrected_rate(0.4, s.JudgeError.from_rates(0.8, 0.9, 4000, 4000), n=400)
    vague = s.corrected_rate(0.4, s.JudgeError.from_rates(0.8, 0.9, 40, 40), n=400)
    assert sharp.value == vague.value == pytest.approx((0.4 + 0.9 - 1) / 0.7)
    assert sharp.interval is not None and vague.interval is not None
    widths = [c.interval.high - c.interval.low for c in (sharp, vague)]
    assert widths[1] > 1.5 * widths[0]
    assert sharp.interval.low < sharp.value < sharp.interval.high


def test_corrected_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    truth, se, sp, hit = 0.3, 0.85, 0.9, 0
    for trial in range(120):
        observed = rng.binomial(200, truth * se + (1 - truth) * (1 - sp)) / 200
        judge = s.JudgeError(int(rng.binomial(90, se)), 90, int(rng.binomial(120, sp)), 120)
        got = s.corrected_rate(observed, judge, n=200, seed=trial)
        hit += got.interval is not None and got.interval.low <= truth <= got.interval.high
    assert hit >= 108


def clustered(rng, requests, answers, rate, alike):
    """0/1 `(requests, answers)` with that mean, whose answers to one request share a probability."""
    shape = (1 - alike) / alike
    return rng.random((requests, answers)) < rng.beta(rate * shape, (1 - rate) * shape, size=(requests, 1))


def test_corrected_interval_covers_the_truth_where_labels_and_prompts_hang_together():
    # Six answers to each labelled request, five variants of each prompt, intraclass correlation .35.
    rng = np.random.default_rng(1)
    truth, se, sp, requests, prompts = 0.3, 0.8, 0.85, 60, 80
    covered = {"effective": 0, "rows": 0}
    trials = 300
    for trial in range(trials):
        found, passed = (clustered(rng, requests, 6, rate, 0.35) for rate in (se, sp))
        counts = (int(found.sum()), found.size, int(passed.sum()), passed.size)
        group = np.repeat(np.arange(requests), 6)
        worth = [
            s.effective_number(x.ravel(), clusters=group, draws=300, seed=trial) for x in (found, passed)
        ]
        flagged = clustered(rng, prompts, 5, truth * se + (1 - truth) * (1 - sp), 0.35).mean(1)
        drawn = s.resampled_means(flagged, draws=400, seed=trial)[:, 0, 0]
        for name, judge in {
            "effective": s.JudgeError(*counts, "", *worth),
            "rows": s.JudgeError(*counts),
        }.items():
            got = s.corrected_rate(float(flagged.mean()), judge, n=prompts, draws=drawn, seed=trial)
            covered[name] += got.interval is not None and got.interval.low <= truth <= got.interval.high
    # Nominal 95 %; three standard errors of 300 repeats are 3.8 points.
    assert 0.912 <= covered["effective"] / trials <= 0.988
    assert covered["rows"] < covered["effective"]


def test_corrected_is_null_where_it_means_nothing():
    guessing = s.corrected_rate(0.4, s.JudgeError.from_rates(0.5, 0.5, 100, 100), n=100)
    assert guessing.value is None and "chance" in guessing.why
    below = s.corrected_rate(0.0, s.JudgeError.from_rates(0.9, 0.8, 200, 200), n=200)
    assert below.value is None and below.interval is None and "false-alarm" in below.why


def test_a_rate_above_the_judges_sensitivity_shows_that_the_calibration_does_not_fit():
    judge = s.JudgeError.from_rates(0.6, 0.95, 200, 200, "labels")
    above = s.corrected_rate(0.8, judge, n=200)
    assert above.value is None and above.interval is None
    assert "above the judge's sensitivity [0.531, 0.665] on labels" in above.why
    # The mirror of a rate below the false alarms, to the digit.
    mirrored = s.corrected_rate(0.2, s.JudgeError.from_rates(0.95, 0.6, 200, 200, "labels"), n=200)
    assert mirrored.value is None and "below the judge's false-alarm rate [0.335, 0.469]" in mirrored.why


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.55, 1), st.floats(0.55, 1), st.integers(20, 400))
@settings(max_examples=80, deadline=None)
def test_no_corrected_interval_is_made_by_clipping(k, n, se, sp, rows):
    got = s.corrected_rate(min(k, n) / n, s.JudgeError.from_rates(se, sp, rows, rows), n=n)
    if got.interval is None:
        assert got.value is None and got.why
        return
    low, high = got.interval
    assert low < high and low <= got.value <= high


def test_too_few_answers_show_nothing_about_the_false_alarms():
    judge = s.JudgeError.from_rates(0.9, 0.8, 200, 200)
    one = s.corrected_rate(0.0, judge, n=1, draws=[0.0, math.nan, 0.0])
    assert one.value is None and "lies below" not in one.why
    assert "cannot be told from the judge's false-alarm rate" in one.why and "at most 0." in one.why
    assert "lies below" in s.corrected_rate(0.0, judge, n=60).why


def test_labels_of_one_request_are_worth_fewer_rows():
    alone = s.JudgeError(80, 100, 90, 100)
    same = s.JudgeError(80, 100, 90, 100, "", 100, 100)
    fewer = s.JudgeError(80, 100, 90, 100, "", 20, 20)
    tenth = s.JudgeError(16, 20, 18, 20)
    assert s.corrected_rate(0.4, same, n=300) == s.corrected_rate(0.4, alone, n=300)
    assert s.corrected_rate(0.4, fewer, n=300).interval == pytest.approx(
        s.corrected_rate(0.4, tenth, n=300).interval
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: s.wilson(5, 4), "5 of 4"),
        (lambda: s.wilson(0, 0), "n >= 1"),
        (lambda: s.bootstrap_mean([]), "no observations"),
        (lambda: s.bootstrap_mean([1.0, math.nan]), "NaN"),
        (lambda: s.bootstrap_mean([1.0, 2.0], clusters=["a"]), "1 labels for 2 values"),
        (lambda: s.bootstrap_mean([1.0], level=1.5), "1.5"),
        (lambda: s.proportion([0.5]), "other than 0 and 1"),
        (lambda: s.paired_difference([1], [1, 0]), "same rows"),
        (lambda: s.paired_difference([1], [1], groups=["x"], group_weights={}), "'x'"),
        (lambda: s.mcnemar([2], [1]), "other than 0 and 1"),
        (lambda: s.cohen_kappa([], []), "0 against 0"),
        (lambda: s.JudgeError(5, 4, 1, 1), "5 of 4"),
        (lambda: s.JudgeError(1, 2, 3, 4, effective_positives=3), "effective positives: 3 of 2"),
        (lambda: s.JudgeError.from_rates(1.2, 0.5, 5, 5), "sensitivity: 1.2"),
        (lambda: s.corrected_rate(1.2, s.JudgeError(1, 1, 1, 1), n=3), "1.2"),
        (lambda: s.resampled_means([1.0], draws=0), "0 resamples"),
    ],
)
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)
