"""Metrics against scikit-learn, intervals and the calibration JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from safepref.errors import InputError
from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.judges.calibrate import Metrics, auc_difference, calibrate, draw_weights, measure
from safepref.judges.card import calibration_card


class WordJudge:
    """Harmful by a number written in the answer; "???" is unscored."""

    name = "word"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        found = []
        for exchange in exchanges:
            if exchange.response == "???":
                found.append(Judgment(Verdict.UNSCORED, None, self.name, reason="junk"))
                continue
            score = float(exchange.response)
            verdict = Verdict.HARMFUL if score >= 0.5 else Verdict.HARMLESS
            found.append(Judgment(verdict, score, self.name))
        return found

    def card(self) -> dict[str, Any]:
        return {"judge": self.name, "trained_on": ["nothing"]}


class FittedJudge(WordJudge):
    """A word judge that was fitted on prompts that begin with "seen"."""

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        return [exchange.prompt.startswith("seen") for exchange in exchanges]


def data(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    keys = ("prompt", "response", "harmful")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return path


def drawn(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(float)
    # Rounded, so that scores are tied as a judge's are.
    return labels, np.round(np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1), 1)


def test_metrics_equal_scikit_learn_with_and_without_weights() -> None:
    labels, scores = drawn()
    flagged = (scores >= 0.5).astype(float)
    rng = np.random.default_rng(1)
    for weights in (None, rng.integers(0, 4, len(labels)).astype(float)):
        w = np.ones(len(labels)) if weights is None else weights
        found = Metrics(labels, scores, flagged).all(weights)
        wanted = {
            "roc_auc": sk.roc_auc_score(labels, scores, sample_weight=w),
            "pr_auc": sk.average_precision_score(labels, scores, sample_weight=w),
            "sensitivity": sk.recall_score(labels, flagged, sample_weight=w),
            "specificity": sk.recall_score(1 - labels, 1 - flagged, sample_weight=w),
            "f1": sk.f1_score(labels, flagged, sample_weight=w),
            "kappa": sk.cohen_kappa_score(labels, flagged, sample_weight=w),
        }
        for key, value in wanted.items():
            assert found[key] == pytest.approx(value, abs=1e-9), key


def test_calibration_error_in_closed_form() -> None:
    # All at .75, half of them harmful: the gap is .25 in the only bin.
    labels, scores = np.asarray([1.0, 0, 1, 0]), np.full(4, 0.75)
    assert Metrics(labels, scores, np.ones(4)).all()["ece"] == pytest.approx(0.25)
    assert Metrics(labels, labels, labels).all()["ece"] == 0


def test_whole_groups_are_drawn() -> None:
    groups = ["a", "a", "b", "b", "b", "c"]
    weights = draw_weights(groups, 50, 0)
    assert (weights.sum(1) > 0).all()
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] == weights[:, 4]).all()
    # Three groups are drawn three times with replacement.
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all()


def test_intervals_hold_the_value_and_shrink_with_rows() -> None:
    widths = []
    for n in (100, 1600):
        labels, scores = drawn(n)
        flagged = (scores >= 0.5).astype(float)
        found = measure(labels, scores, flagged, [str(i) for i in range(n)], draws=200)
        low, high = found["intervals"]["roc_auc"]
        assert low <= found["roc_auc"] <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_one_class_alone_gives_nulls_and_no_warning() -> None:
    found = measure(np.ones(5), np.linspace(0.1, 0.9, 5), np.ones(5), list("abcde"), draws=50)
    assert found["roc_auc"] is None and found["specificity"] is None and found["sensitivity"] == 1
    assert found["intervals"]["roc_auc"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_f1_and_kappa_are_null_like_the_rate_that_is_missing(label: float) -> None:
    found = measure(np.full(5, label), np.linspace(0.1, 0.9, 5), np.asarray([0.0, 0, 1, 1, 1]), list("abcde"))
    assert found["kappa"] is None and found["intervals"]["kappa"] is None
    assert (found["f1"] is None) == (label == 0) == (found["sensitivity"] is None)


def test_a_better_judge_has_a_difference_above_zero_and_equals_have_none() -> None:
    labels, scores = drawn(800)
    worse = np.random.default_rng(3).random(800)
    groups = [str(i) for i in range(800)]
    value, (low, high) = auc_difference(labels, scores, worse, groups, draws=200)
    assert low > 0.1 and low <= value <= high
    assert auc_difference(labels, scores, scores, groups, draws=50) == (0.0, (0.0, 0.0))


def test_calibration_json_has_the_contract_s_keys(tmp_path: Path) -> None:
    rows = [
        (f"p{i}", s, h)
        for i, (s, h) in enumerate([("0.9", 1), ("0.2", 0), ("0.7", 0), ("0.6", 1), ("???", 1)])
    ]
    found = calibrate(WordJudge(), data(tmp_path / "d.jsonl", rows), draws=50)
    contract = {
        "judge", "trained_on", "data", "n", "unscored", "roc_auc", "pr_auc", "sensitivity", "specificity",
        "f1", "kappa", "ece", "intervals",
    }  # fmt: skip
    assert contract <= found.keys()
    assert found["n"] == 5 and found["unscored"] == 1 and found["trained_on"] == ["nothing"]
    assert found["sensitivity"] == 1.0 and found["specificity"] == 0.5
    assert found["hits"] == {"hits": 2, "positives": 2, "rejections": 1, "negatives": 2}
    json.dumps(found, allow_nan=False)


def test_every_category_and_label_of_a_set_has_its_row(tmp_path: Path) -> None:
    clean = dict.fromkeys(("S", "H", "V", "HR", "SH"), 0)
    answer = {"prompt": "p", "category": "theft"}
    sets: list[tuple[list[dict[str, Any]], dict[str, tuple[int, float | None, float | None]]]] = [
        (
            [
                {**answer, "response": "0.9", "harmful": 1, "action": "5", "model": "a"},
                {**answer, "response": "0.9", "harmful": 0, "action": "0", "model": "a"},
                {**answer, "response": "0.1", "harmful": 0, "action": "0", "model": "b"},
            ],
            {
                "action 0": (2, None, 0.5),
                "action 5": (1, 1.0, None),
                "model a": (2, 1.0, 0.0),
                "model b": (1, None, 1.0),
                "theft": (3, 1.0, 0.5),
            },
        ),
        (
            [
                {"text": "0.9", "labels": {"S": 1, "S3": 1}},
                {"text": "0.1", "labels": {**clean, "S": 1}},
                {"text": "0.1", "labels": clean},
            ],
            {"label S": (2, 0.5, None), "label S3": (1, 1.0, None)},
        ),
        (
            [{"text": "0.9", "toxic": True}, {"text": "0.2", "toxic": False}],
            {"label toxic": (1, 1.0, None), "label not toxic": (1, None, 1.0)},
        ),
        (
            [
                {
                    "prompt": "p",
                    "response": "0.9",
                    "label": "1_full_compliance",
                    "prompt_type": t,
                    "model": "m",
                }
                for t in ("contrast_x", "x")
            ],
            {"contrast_x": (1, 1.0, None), "x": (1, None, 0.0), "model m": (2, 1.0, 0.0)},
        ),
    ]
    for rows, wanted in sets:
        path = tmp_path / "d.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = calibrate(WordJudge(), path, draws=20)
        keys = ("n", "sensitivity", "specificity")
        assert {name: tuple(row[key] for key in keys) for name, row in found["by_category"].items()} == wanted
        assert all(f"| {name} | " in calibration_card(found) for name in wanted)


def test_rows_that_the_judge_was_fitted_on_are_left_out(tmp_path: Path) -> None:
    rows = [("seen a", "0.9", 0), ("b", "0.9", 1), ("c", "0.1", 0)]
    found = calibrate(FittedJudge(), data(tmp_path / "d.jsonl", rows), draws=20)
    assert found["n"] == 2 and found["left_out"] == 1 and found["specificity"] == 1.0
    with pytest.raises(InputError, match="fitted on all"):
        calibrate(FittedJudge(), data(tmp_path / "e.jsonl", rows[:1]), draws=20)


def test_rows_of_which_people_do_not_say_are_left_out_and_counted(tmp_path: Path) -> None:
    clean = dict.fromkeys(("S", "H", "V", "HR", "SH"), 0)
    rows = [("0.9", {"H": 1}), ("0.1", clean), ("0.9", {"S": 0}), ("0.9", {})]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": text, "labels": given}) + "\n" for text, given in rows))
    found = calibrate(WordJudge(), path, draws=20)
    assert (found["n"], found["unknown"], found["specificity"]) == (2, 2, 1.0)
    assert "2 rows were left out: people do not say" in calibration_card(found)


def test_a_judge_that_scores_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scored none of 1"):
        calibrate(WordJudge(), data(tmp_path / "d.jsonl", [("a", "???", 1)]), draws=20)
