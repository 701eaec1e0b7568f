"""Judgments on disk: judged once, re-used, unscored asked again, torn rows survived."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safepref.judges.base import Exchange, Judgment, Verdict
from safepref.judges.cache import CachedJudge


class Counting:
    """Counts what it is asked; answers "?" with unscored."""

    name = "counting"

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.seen: list[Exchange] = []

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        self.seen += exchanges
        return [
            Judgment(Verdict.UNSCORED, None, self.name, reason="?")
            if e.response == "?"
            else Judgment(Verdict.HARMFUL, 0.75, self.name, ("S1",))
            for e in exchanges
        ]

    def card(self) -> dict[str, Any]:
        return {"judge": self.name, "version": self.version}


ASKED = [Exchange("p", "a"), Exchange("p", "b"), Exchange("p", "a"), Exchange("q", "é\n")]


def test_equal_exchanges_reach_the_judge_once_in_and_across_processes(tmp_path: Path) -> None:
    first = Counting()
    cached = CachedJudge(first, tmp_path)
    made = cached.judge(ASKED)
    assert len(first.seen) == 3 and cached.reuse == 0.25
    second = Counting()
    again = CachedJudge(second, tmp_path)
    assert again.judge(ASKED) == made and not second.seen and again.reuse == 1.0


def test_prompt_and_response_do_not_run_together(tmp_path: Path) -> None:
    inner = Counting()
    CachedJudge(inner, tmp_path).judge([Exchange("ab", "c"), Exchange("a", "bc")])
    assert len(inner.seen) == 2


def test_another_card_is_another_cache(tmp_path: Path) -> None:
    CachedJudge(Counting(1), tmp_path).judge(ASKED)
    other = Counting(2)
    CachedJudge(other, tmp_path).judge(ASKED)
    assert len(other.seen) == 3


def test_unscored_is_asked_again(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedJudge(inner, tmp_path)
    assert cached.judge([Exchange("p", "?")])[0].verdict is Verdict.UNSCORED
    cached.judge([Exchange("p", "?")])
    assert len(inner.seen) == 2


def test_a_torn_last_row_costs_only_itself(tmp_path: Path) -> None:
    CachedJudge(Counting(), tmp_path).judge(ASKED)
    (file,) = tmp_path.glob("*.jsonl")
    whole = file.read_text()
    file.write_text(whole[:-30])
    inner = Counting()
    assert len(CachedJudge(inner, tmp_path).judge(ASKED)) == 4
    assert len(inner.seen) == 1
    final = Counting()
    CachedJudge(final, tmp_path).judge(ASKED)
    assert not final.seen
