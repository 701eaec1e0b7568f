"""Scores of a task other than safety: shares of all answers, F1 by hand, and the one main rate."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import f1_score

from safepref.evaluation import main_rate, paired_gain
from safepref.evaluation.confusion import confusion_scores
from safepref.evaluation.task import score_task
from safepref.statistics import wilson

NAMES = ("a", "b", "none")


def row(number: int, right: str, said: str, also: str = "") -> dict[str, Any]:
    verdict = "unscored" if not said else "good" if said in (right, also) else "bad"
    given = {"verdict": verdict, "categories": [said] if said else []}
    return {
        "suite": "task",
        "id": f"p{number}",
        "base_id": f"p{number}",
        "category": right,
        "judge": "labels",
        "verdict": verdict,
        "verdicts": {"labels": given},
        "refusal": 0.0,
        "truncated": False,
        "degenerate": "",
    }


TABLE = [("a", "a")] * 6 + [("a", "b")] * 2 + [("b", "b")] * 5 + [("b", "none")] + [("none", "none")] * 4
ROWS = [row(n, right, said) for n, (right, said) in enumerate([*TABLE, ("none", "a"), ("b", "")])]


def test_shares_are_of_all_answers() -> None:
    scores = score_task(ROWS, name="moderation", measure="accuracy", draws=50)
    assert scores["n"] == 20 and scores["rate"] == pytest.approx(15 / 20)
    assert scores["rate"] + scores["bad"] + scores["unscored"] == pytest.approx(1)
    assert scores["interval"] == pytest.approx(list(wilson(15, 20)))
    assert scores["by_category"] == pytest.approx({"a": 6 / 8, "b": 5 / 7, "none": 4 / 5})
    assert scores["intervals"]["none"] == pytest.approx(list(wilson(4, 5)))
    assert scores["corrected"] is None and scores["second"] is None


def test_f1_is_scikit_learns_and_the_table_counts_every_row() -> None:
    scores = confusion_scores(ROWS, draws=200)
    right = [r["category"] for r in ROWS]
    said = [(r["verdicts"]["labels"]["categories"] or ["unscored"])[0] for r in ROWS]
    expected = f1_score(right, said, labels=NAMES, average=None)
    assert [scores["f1"][name] for name in NAMES] == pytest.approx(expected.tolist())
    assert scores["macro_f1"] == pytest.approx(expected.mean())
    low, high = scores["macro_f1_interval"]
    assert low < scores["macro_f1"] < high
    assert scores["confusion"]["b"] == {"b": 5, "none": 1, "unscored": 1}
    assert sum(n for line in scores["confusion"].values() for n in line.values()) == len(ROWS)


def test_of_several_right_categories_the_named_one_counts() -> None:
    scores = confusion_scores([row(0, "a", "b", also="b"), row(1, "a", "a")], draws=10)
    assert scores["confusion"] == {"a": {"a": 1}, "b": {"b": 1}} and scores["macro_f1"] == 1


def test_the_main_rate_is_the_tasks_where_there_is_one() -> None:
    task = score_task(ROWS, name="moderation", measure="accuracy", draws=10)
    safety = {"global": 0.4, "interval": [0.3, 0.5]}
    assert main_rate({"safety": safety})[:3] == ("safety", 0.4, [0.3, 0.5])
    assert main_rate({"safety": None, "task": task})[:3] == ("accuracy", 0.75, task["interval"])
    assert main_rate(None).value is None


def test_two_policies_are_compared_on_the_same_prompts() -> None:
    worse = [row(n, r["category"], "none") for n, r in enumerate(ROWS)]
    gain = paired_gain(worse, ROWS, "task", draws=100)
    assert gain.value == pytest.approx((15 - 5) / 20) and gain.n == 20
    assert gain.plain is not None and gain.plain.only_second - gain.plain.only_first == 10
