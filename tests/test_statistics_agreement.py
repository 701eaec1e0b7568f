"""Agreement and several tests at once: published tables and definitions that share no code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from safepref import statistics as s


def test_alpha_of_krippendorffs_own_table() -> None:
    # Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve
    # units, some unseen; nominal alpha .743.
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[None if row[at] == "." else row[at] for row in rows] for at in range(12)]
    assert s.krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_alpha_of_two_full_raters_is_scotts_pi_for_small_samples(pairs: list[tuple[str, str]]) -> None:
    names = [name for pair in pairs for name in pair]
    shares = np.array([names.count(name) for name in set(names)]) / len(names)
    chance = float((shares**2).sum())
    got = s.krippendorff_alpha(pairs)
    if chance == 1:
        assert got is None
        return
    pi = (np.mean([a == b for a, b in pairs]) - chance) / (1 - chance)
    assert got == pytest.approx(1 - (1 - pi) * (len(names) - 1) / len(names))


def test_alpha_leaves_single_ratings_out_and_says_nothing_of_none() -> None:
    pairs = [("a", "a"), ("b", "a"), ("b", "b")]
    assert s.krippendorff_alpha([*pairs, ("b", None), (None, None)]) == s.krippendorff_alpha(pairs)
    assert s.krippendorff_alpha([("a", None)]) is None
    assert s.krippendorff_alpha([]) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=4, max_size=40))
@settings(max_examples=40, deadline=None)
def test_kappa_equals_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    first, second = zip(*pairs, strict=True)
    got = s.cohen_kappa(first, second)
    if got is not None:
        assert got == pytest.approx(cohen_kappa_score(first, second))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    wanted = []
    for own in range(len(p)):
        others = [at for at in range(len(p)) if at != own]
        families = [(own, *more) for size in range(len(p)) for more in itertools.combinations(others, size)]
        wanted.append(max(min(1.0, len(f) * min(p[at] for at in f)) for f in families))
    assert s.holm(p) == pytest.approx(wanted)


def test_holm_by_hand() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_corrected_rate_names_what_the_judge_was_measured_on() -> None:
    judge = s.JudgeError.from_rates(0.9, 0.8, 200, 200, "pyrit-objective")
    assert s.corrected_rate(0.5, judge, n=100).source == "pyrit-objective"
    below = s.corrected_rate(0.0, judge, n=100)
    assert below.value is None and "below the judge's false-alarm rate" in below.why
    assert "on pyrit-objective" in below.why
