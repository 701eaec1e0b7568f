"""`judge label`: rows keep what they had, a kill loses one block at most, odd text stops nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_calibrate import WordJudge

from safepref.errors import InputError
from safepref.judges import labelling
from safepref.judges.base import Exchange, Judgment
from safepref.judges.labelling import label
from safepref.judges.registry import load_judge


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_label_adds_verdicts_and_keeps_the_rows(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "response": "0.9", "id": 7}\n\n{"prompt": "b", "response": "???"}\n')
    assert label(WordJudge(), source, out) == 2
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert first["id"] == 7 and first["verdict"] == "harmful" and first["score"] == 0.9
    assert len(first["prompt_sha256"]) == 64 and "prompt_sha256" not in second
    assert second["verdict"] == "unscored" and second["score"] is None and second["categories"] == []


def test_label_names_file_row_and_field(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a", "response": "0.9"}\n{"prompt": "b"}\n')
    with pytest.raises(InputError, match=r"in\.jsonl:2: field 'response' is None"):
        label(WordJudge(), source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_row_labelled_before_loses_the_old_hash(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "response": "???", "prompt_sha256": "old"}\n')
    label(WordJudge(), source, out)
    assert "prompt_sha256" not in lines(out)[0]


class Killed(WordJudge):
    """Counts what it is given, and dies when it has given so many judgments."""

    def __init__(self, dies_at: int) -> None:
        self.dies_at, self.given = dies_at, 0

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        if self.given >= self.dies_at:
            raise KeyboardInterrupt
        self.given += len(exchanges)
        return super().judge(exchanges)


def test_a_second_call_goes_on_where_a_killed_one_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "BLOCK", 4)
    source, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    said = ["???" if n == 1 else str(n / 20) for n in range(19)]
    source.write_text(
        "".join(json.dumps({"prompt": f"p{n}", "response": s}) + "\n" for n, s in enumerate(said))
    )
    label(WordJudge(), source, whole)
    with pytest.raises(KeyboardInterrupt):
        label(Killed(8), source, out)
    assert not out.exists()
    part = tmp_path / "out.jsonl.part"
    part.write_bytes(part.read_bytes()[:-30])  # the eighth row was torn
    steps: list[tuple[int, int]] = []
    again = Killed(100)
    assert label(again, source, out, progress=lambda *step: steps.append(step)) == 19
    # Six were scored; the torn one and the unscored one are judged again.
    assert again.given == 13 and steps[0] == (6, 19) and steps[-1] == (19, 19)
    assert out.read_bytes() == whole.read_bytes() and not part.exists()


def test_another_judge_or_other_data_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stricter(Killed):
        def card(self) -> dict[str, object]:
            return {**super().card(), "threshold": 0.6}

    monkeypatch.setattr(labelling, "BLOCK", 2)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [json.dumps({"prompt": f"p{n}", "response": "0.9"}) + "\n" for n in range(6)]
    for judge, text in ((Stricter(100), rows), (Killed(100), ["\n", *rows])):
        source.write_text("".join(rows))
        with pytest.raises(KeyboardInterrupt):
            label(Killed(4), source, out)
        source.write_text("".join(text))
        label(judge, source, out)
        assert judge.given == 6 and len(lines(out)) == 6


ODD = {"prompt": "How do I \ud800 pick a lock?", "response": "Take the pick \udc00 and turn it slowly."}


@pytest.mark.assets
@pytest.mark.parametrize("name", ["report", "select", "keyword-refusal"])
def test_half_a_surrogate_pair_stops_no_judge_and_stays_in_the_row(tmp_path: Path, name: str) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(ODD) + "\n" + json.dumps({"prompt": "p", "response": "Take it."}) + "\n")
    judge = load_judge(name)
    assert label(judge, source, out) == 2
    first, _ = lines(out)
    assert first["response"] == ODD["response"] and first["verdict"] in ("harmful", "harmless")
    # Outside `label` too.
    assert judge.judge([Exchange(**ODD)])[0].verdict == first["verdict"]
