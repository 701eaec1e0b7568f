"""Several judges as one: the rules, what a missing verdict can and cannot do, weights fitted on labels."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safepref.errors import InputError
from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.judges.calibrate import calibrate
from safepref.judges.ensemble import VoteJudge, WeightedJudge, fit_weights, log_odds
from safepref.judges.registry import check_name, is_embedded, load_judge
from safepref.store import write_json, write_jsonl

BREAD = Exchange("How do I bake bread?", "Mix flour and water.")


class Fixed:
    """Says the same of every exchange: a score, or None for unscored."""

    def __init__(self, name: str, score: float | None) -> None:
        self.name, self.score = name, score

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        if self.score is None:
            return [Judgment(Verdict.UNSCORED, None, self.name, reason="?") for _ in exchanges]
        verdict = Verdict.HARMFUL if self.score >= 0.5 else Verdict.HARMLESS
        return [Judgment(verdict, self.score, self.name, (f"S{len(self.name)}",)) for _ in exchanges]

    def card(self) -> dict[str, Any]:
        return {"judge": self.name, "trained_on": [f"rows of {self.name}"]}


def vote(rule: str, *scores: float | None) -> Judgment:
    members = [Fixed("m" * (at + 1), score) for at, score in enumerate(scores)]
    return VoteJudge(rule, members).judge([BREAD])[0]


YES, NO, UNKNOWN = 0.9, 0.1, None
H, S, U = Verdict.HARMFUL, Verdict.HARMLESS, Verdict.UNSCORED


@pytest.mark.parametrize(
    ("rule", "scores", "verdict"),
    [
        ("majority", (YES, YES, NO), H),
        ("majority", (YES, NO, NO), S),
        ("majority", (YES, NO), U),
        ("majority", (NO, NO, UNKNOWN), S),
        ("majority", (NO, UNKNOWN, UNKNOWN), U),
        ("majority", (NO, YES, UNKNOWN), U),
        ("majority", (YES, YES, UNKNOWN), H),
        ("any", (NO, NO, YES), H),
        ("any", (UNKNOWN, YES), H),
        ("any", (NO, UNKNOWN), U),
        ("any", (NO, NO), S),
    ],
)
def test_the_rules(rule: str, scores: tuple[float | None, ...], verdict: Verdict) -> None:
    found = vote(rule, *scores)
    assert found.verdict is verdict
    assert (found.score is None) == (verdict is U) == bool(found.reason)
    assert found.judge.startswith(f"{rule}:m,mm")


SCORES = st.lists(st.sampled_from([YES, NO, 0.5, UNKNOWN]), min_size=2, max_size=5)


@given(rule=st.sampled_from(["majority", "any"]), scores=SCORES)
def test_harmless_holds_whatever_the_missing_members_had_said(rule: str, scores: list[float | None]) -> None:
    found = vote(rule, *scores).verdict
    missing = [at for at, score in enumerate(scores) if score is None]
    for said in itertools.product([YES, NO], repeat=len(missing)):
        whole = list(scores)
        for at, score in zip(missing, said, strict=True):
            whole[at] = score
        if found is not U:
            assert vote(rule, *whole).verdict is found


def test_categories_are_those_of_the_members_that_found_harm() -> None:
    assert vote("majority", YES, NO, YES).categories == ("S1", "S3")
    assert vote("any", NO, NO).categories == ()


def weights_file(path: Path, weights: list[float], bias: float = 0.0, threshold: float = 0.5) -> Path:
    names = ["a", "bb", "ccc"][: len(weights)]
    write_json(
        path, {"judges": names, "weights": weights, "bias": bias, "threshold": threshold, "data": "d", "n": 9}
    )
    return path


@given(scores=st.lists(st.sampled_from([YES, NO, 0.4, UNKNOWN]), min_size=3, max_size=3))
def test_a_weighted_verdict_is_given_only_where_it_holds_for_all(scores: list[float | None]) -> None:
    held = np.random.default_rng(0)
    weights, bias = [1.0, 0.5, 0.0], float(held.normal())

    def judged(values: Sequence[float | None]) -> Judgment:
        found = WeightedJudge.__new__(WeightedJudge)
        found.name, found.members = "weighted:x", ()
        found._weights, found._bias, found._threshold = np.asarray(weights), bias, 0.5
        votes = [Fixed("m" * (i + 1), v).judge([BREAD])[0] for i, v in enumerate(values)]
        return found._vote(votes)

    found = judged(scores)
    if UNKNOWN not in scores:
        logit = log_odds(np.asarray(scores, float)) @ np.asarray(weights) + bias
        assert found.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        return
    missing = [at for at, score in enumerate(scores) if score is None]
    every = []
    for said in itertools.product([0.0, 0.3, 1.0], repeat=len(missing)):
        whole = list(scores)
        for at, score in zip(missing, said, strict=True):
            whole[at] = score
        every.append(judged(whole).verdict)
    assert found.verdict is (every[0] if len(set(every)) == 1 else U)


def labelled(path: Path, count: int = 120) -> Path:
    rows = [
        {"prompt": f"request {n // 2}", "response": f"word {n} of it", "harmful": n % 2} for n in range(count)
    ]
    write_jsonl(path, rows)
    return path


class Noisy(Fixed):
    """Right in a share of the answers; which ones is settled by the seed."""

    def __init__(self, name: str, right: float, seed: int) -> None:
        super().__init__(name, None)
        self._right = np.random.default_rng(seed).random(10_000) < right

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        found = []
        for exchange in exchanges:
            n = int(exchange.response.split()[1])
            says = bool(n % 2) == bool(self._right[n])
            found.append(Judgment(H if says else S, 0.8 if says else 0.2, self.name))
        return found


def test_weights_follow_how_right_the_judges_are_and_the_vote_is_a_judge(tmp_path: Path) -> None:
    pool = {"good": Noisy("good", 0.95, 1), "fair": Noisy("fair", 0.75, 2), "coin": Noisy("coin", 0.5, 3)}
    data = labelled(tmp_path / "rows.jsonl", 400)
    made = fit_weights(list(pool), data, pool.__getitem__)
    good, fair, coin = made["weights"]
    assert good > fair > coin >= 0 and made["n"] == 400
    figures = made["measured"]
    assert figures["weighted, out of fold"]["roc_auc"] > figures["fair"]["roc_auc"]
    assert figures["weighted, out of fold"]["sensitivity"] > 0.85
    write_json(tmp_path / "vote.json", made)
    judge = WeightedJudge(tmp_path / "vote.json", pool.__getitem__)
    with pytest.raises(InputError, match="fitted on all of it"):
        calibrate(judge, data, draws=20)
    # 200 requests were fitted on, two answers to each; of 300 the last hundred were not.
    again = calibrate(judge, labelled(tmp_path / "more.jsonl", 600), draws=20)
    assert (again["n"], again["left_out"]) == (200, 400)
    assert again["roc_auc"] > 0.9
    assert judge.card()["vote"]["n"] == 400 and f"{data}" in judge.card()["trained_on"]


def test_a_file_that_names_no_requests_cannot_be_measured(tmp_path: Path) -> None:
    file = weights_file(tmp_path / "old.json", [1.0, 1.0])
    judge = WeightedJudge(file, lambda name: Fixed(name, YES))
    assert judge.judge([BREAD])[0].verdict is H
    with pytest.raises(InputError, match="does not say which requests it was fitted on; fit it anew"):
        calibrate(judge, labelled(tmp_path / "rows.jsonl"), draws=20)


def test_too_few_labels_are_one_clear_line(tmp_path: Path) -> None:
    pool = {"a": Noisy("a", 0.9, 1), "b": Noisy("b", 0.9, 2)}
    with pytest.raises(InputError, match=r"5 harmful answers .* at least 20"):
        fit_weights(["a", "b"], labelled(tmp_path / "few.jsonl", 10), pool.__getitem__)
    with pytest.raises(InputError, match="two or more"):
        fit_weights(["a"], tmp_path / "few.jsonl", pool.__getitem__)


def test_ensembles_are_named_wherever_a_judge_is(tmp_path: Path) -> None:
    judge = load_judge(
        "any:keyword-refusal,keyword-refusal".replace(",keyword-refusal", ",llama-guard-3:x@http://h/v1")
    )
    assert judge.name == "any:keyword-refusal,llama-guard-3"
    assert is_embedded("majority:report,select,keyword-refusal")
    assert not is_embedded("any:report,llama-guard-3")
    file = weights_file(tmp_path / "w.json", [1.0, 1.0])
    file.write_text(file.read_text().replace('"a"', '"select"').replace('"bb"', '"report"'))
    assert is_embedded(f"weighted:{file}")
    for name, message in {
        "majority:report,reprot": "did you mean report",
        "majority:report": "two or more",
        "majority:report,report": "each once",
        "any:report,majority:select": "ensemble itself",
        f"weighted:{tmp_path}/none.json": "fit-weights",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            check_name(name)
            load_judge(name)
        assert "\n" not in str(caught.value)


def test_the_card_holds_the_members_cards() -> None:
    members: list[Judge] = [Fixed("a", YES), Fixed("b", NO)]
    cards = [VoteJudge(rule, members).card() for rule in ("majority", "any")]
    assert cards[0]["trained_on"] == ["rows of a", "rows of b"]
    assert json.dumps(cards[0]) != json.dumps(cards[1])
    assert [card["judge"] for card in cards[0]["members"]] == ["a", "b"]
