"""People against people and a judge against people: by hand, against scikit-learn, on a card."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from safepref.judges.base import Exchange
from safepref.judges.calibrate import calibrate
from safepref.judges.card import calibration_card
from safepref.judges.labelled import Labelled, pyrit_harm
from safepref.judges.raters import human_agreement, rater_figures
from safepref.judges.refusal import KeywordRefusalJudge
from safepref.statistics import krippendorff_alpha


def rated(scores: np.ndarray) -> list[Labelled]:
    return [
        Labelled(Exchange(f"p{at // 2}", f"r{at}"), int(row.mean() >= 0.5), raters=tuple(row.tolist()))
        for at, row in enumerate(scores)
    ]


def test_each_is_held_against_the_mean_of_the_others() -> None:
    # Of the first row the others' mean is .5 for rater 1, .4 for rater 2 and .9 for rater 3.
    found = rater_figures(rated(np.asarray([[0.8, 1.0, 0.0], [0, 0, 0], [1, 1, 1]])), np.asarray([0.0, 0, 1]))
    assert found is not None and found["n"] == 3
    assert [row["agreement"] for row in found["rater_against_others"]] == pytest.approx([1, 2 / 3, 2 / 3])
    assert [row["agreement"] for row in found["judge_against_rater"]] == pytest.approx([2 / 3, 2 / 3, 1])
    assert [row["rater"] for row in found["judge_against_rater"]] == [1, 2, 3]


def test_kappas_and_alphas_are_the_libraries_and_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((200, 1)) < 0.4
    votes = np.where(rng.random((200, 3)) < 0.85, truth, ~truth).astype(float)
    judge = np.where(rng.random(200) < 0.7, truth[:, 0], ~truth[:, 0]).astype(float)
    rows = rated(votes)
    found = rater_figures([*rows, Labelled(Exchange("p", "r"), 1)], np.r_[judge, 1.0], draws=400)
    assert found is not None and found["n"] == 200
    for place in range(3):
        others = (np.delete(votes, place, axis=1).mean(1) >= 0.5).astype(float)
        for key, against in (("rater_against_others", others), ("judge_against_rater", judge)):
            row = found[key][place]
            assert row["kappa"] == pytest.approx(cohen_kappa_score(votes[:, place], against))
            assert row["agreement"] == pytest.approx((votes[:, place] == against).mean())
            for figure in ("agreement", "kappa"):
                low, high = row["intervals"][figure]
                assert low < row[figure] < high
    assert found["alpha"] == krippendorff_alpha(votes.tolist())
    assert found["alpha_with_judge"] == krippendorff_alpha(np.c_[votes, judge].tolist())
    assert found["alpha_with_judge"] < found["alpha"]


def test_people_who_all_say_the_same_have_no_kappa_and_an_interval_with_width() -> None:
    found = rater_figures(rated(np.ones((6, 2))), np.ones(6))
    assert found is not None
    row = found["rater_against_others"][0]
    assert row["kappa"] is None and row["intervals"]["kappa"] is None and found["alpha"] is None
    # Six answers to three requests: Wilson's interval of three of three.
    assert row["intervals"]["agreement"] == pytest.approx([0.4385, 1.0], abs=1e-4)


def test_rows_of_one_rater_say_nothing() -> None:
    assert rater_figures([Labelled(Exchange("p", "r"), 1)], np.ones(1)) is None
    assert human_agreement([Labelled(Exchange("p", "r"), 1)]) is None


@pytest.mark.assets
def test_a_card_gives_people_and_judge_side_by_side_and_claims_no_ceiling() -> None:
    found = calibrate(KeywordRefusalJudge(), "pyrit-harm", draws=50)
    several = [row for row in pyrit_harm() if row.raters]
    assert found["human_agreement"] == human_agreement(several)
    assert found["raters"]["n"] <= len(several)
    text = calibration_card(found)
    for place in (1, 2, 3):
        assert f"| rater {place} against the mean of the others | " in text
        assert f"| judge against rater {place} | " in text
    assert "with the judge as one more rater" in text and "no judge can" not in text
