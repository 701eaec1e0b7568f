"""Judge cards hold what the JSON holds, and break no table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_calibrate import WordJudge, data

from safepref.errors import InputError
from safepref.judges.calibrate import calibrate
from safepref.judges.card import calibration_card, judges_card, table
from safepref.judges.measured import calibration_of, error_of, read_calibration
from safepref.store import write_json

ROWS = [("a", "0.9", 1), ("b", "0.2", 0), ("c", "0.7", 0), ("d", "0.1", 0), ("e", "0.8", 1), ("f", "???", 1)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_calibration_card_says_what_the_json_says(tmp_path: Path) -> None:
    found = calibrate(WordJudge(), data(tmp_path / "rows.jsonl", ROWS))
    text = calibration_card(found)
    rows = {row[0]: row[1] for row in map(cells, re.findall(r"^\|.*\|$", text, re.M)) if len(row) == 2}
    assert rows["sensitivity"].startswith(f"{found['sensitivity']:.3f} (")
    assert rows["specificity"].startswith(f"{found['specificity']:.3f} (")
    assert (rows["answers"], rows["of these harmful by people"], rows["of these not scored"]) == (
        "6",
        "2",
        "1",
    )
    assert "It found 2 of 2 harmful answers and passed 2 of 3 others." in text
    assert text.startswith(f"# word on {tmp_path / 'rows.jsonl'}\n")


def test_what_was_not_measured_is_said_and_takes_no_row() -> None:
    text = judges_card({"report": {"judge": "guard", "family": "guard model"}})
    assert "Not measured on people's labels." in text
    assert "|" not in text


def test_the_judge_of_the_printed_numbers_stands_first() -> None:
    cards = {name: {"judge": name} for name in ("toxicity", "select", "other", "refusal", "report")}
    heads = re.findall(r"^## (\w+)", judges_card(cards), re.M)
    assert heads == ["report", "select", "refusal", "toxicity", "other"]


def test_a_bar_or_a_line_break_in_a_name_breaks_no_table() -> None:
    lines = table(["a|b", "c"], [["x\ny", "|"]])
    assert [len(cells(line)) for line in lines] == [2, 2, 2]


def test_categories_carry_intervals(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": str(i), "response": "0.9", "harmful": int(i < 8), "category": "x"} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = calibrate(WordJudge(), path)["by_category"]["x"]
    assert (found["n"], found["sensitivity"], found["specificity"]) == (10, 1.0, 0.0)
    # Wilson's interval of 8 of 8 and of 0 of 2.
    assert found["intervals"]["sensitivity"] == pytest.approx([0.6756, 1.0], abs=1e-4)
    assert found["intervals"]["specificity"] == pytest.approx([0.0, 0.6576], abs=1e-4)


def test_a_calibration_of_ones_own_is_read_and_is_of_this_judge(tmp_path: Path) -> None:
    judge, file = WordJudge(), tmp_path / "card.json"
    write_json(file, calibrate(judge, data(tmp_path / "rows.jsonl", ROWS)))
    assert calibration_of(judge, file)["hits"]["positives"] == 2
    judge.name = "another"
    with pytest.raises(
        InputError, match=r"card\.json: measured judge 'word', but judges.report is 'another'"
    ):
        calibration_of(judge, file)


def test_labels_of_one_request_are_worth_less_in_a_corrected_rate(tmp_path: Path) -> None:
    # Ten requests with six answers each, judged alike within a request.
    scores = [0.9, 0.9, 0.9, 0.2, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1]
    rows = [(f"p{at}", str(score), int(at < 5)) for at, score in enumerate(scores) for _ in range(6)]
    found = calibrate(WordJudge(), data(tmp_path / "rows.jsonl", rows))
    assert found["effective"]["positives"] == pytest.approx(4, abs=0.6)
    assert found["effective"]["negatives"] == pytest.approx(4, abs=0.6)
    write_json(tmp_path / "card.json", found)
    error = error_of(found["hits"], read_calibration(tmp_path / "card.json"))
    assert (error.positives, error.source) == (30, str(tmp_path / "rows.jsonl"))
    assert error.effective_positives == found["effective"]["positives"]
    # A calibration that does not say takes each label for one row.
    old = error_of(found["hits"], {key: value for key, value in found.items() if key != "effective"})
    assert old.effective_positives is None
    for worth, says in (
        ([], "`effective` is"),
        ({"positives": "3"}, "`effective`"),
        ({"positives": 31}, "31 of 30"),
    ):
        write_json(tmp_path / "card.json", {**found, "effective": worth})
        with pytest.raises(InputError, match=says):
            read_calibration(tmp_path / "card.json")


def test_a_calibration_of_another_version_of_the_judge_is_refused(tmp_path: Path) -> None:
    class Changed(WordJudge):
        def card(self) -> dict[str, object]:
            return {**super().card(), "threshold": 0.6}

    file = tmp_path / "card.json"
    write_json(file, calibrate(WordJudge(), data(tmp_path / "rows.jsonl", ROWS)))
    with pytest.raises(InputError, match=r"had threshold None when it was measured and has 0\.6 now"):
        calibration_of(Changed(), file)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"members": [{"judge": "a", "threshold": 0.7}, {"judge": "b"}]}, "had other members"),
        ({"members": [{"judge": "a", "threshold": 0.5, "min_mass": 0.4}, {"judge": "b"}]}, "other members"),
        ({"members": [{"judge": "a", "threshold": 0.5}]}, "had other members"),
        ({"vote": {"weights": [1, 3]}}, "had other vote"),
        ({"min_mass": 0.4}, r"had min_mass 0\.5 when it was measured and has 0\.4 now"),
        ({"model": "another"}, "had model 'one'"),
    ],
)
def test_all_that_verdicts_depend_on_is_compared(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    class Whole(WordJudge):
        def __init__(self) -> None:
            self.own: dict[str, object] = {}

        def card(self) -> dict[str, object]:
            members = [{"judge": "a", "threshold": 0.5, "rows": 3}, {"judge": "b"}]
            own = {"model": "one", "min_mass": 0.5, "vote": {"weights": [1, 2]}, "members": members}
            return {**super().card(), **own, **self.own}

    judge, file = Whole(), tmp_path / "card.json"
    write_json(file, calibrate(judge, data(tmp_path / "rows.jsonl", ROWS)))
    judge.own = {"members": [{"judge": "a", "threshold": 0.5, "rows": 4}, {"judge": "b"}]}
    assert calibration_of(judge, file)  # how many rows it was fitted on moves no verdict
    judge.own = changed
    with pytest.raises(InputError, match=says):
        calibration_of(judge, file)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("[]", "no calibration"),
        ('{"hits": {"hits": 1}}', "no calibration"),
        ('{"hits": {"hits": 1, "positives": 0, "rejections": 1, "negatives": 1}}', "sensitivity: 1 of 0"),
        ('{"hits": {"hits": 1.5, "positives": 2, "rejections": 1, "negatives": 1}}', "no calibration"),
        ("{", "not JSON"),
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, written: str, says: str) -> None:
    file = tmp_path / "card.json"
    file.write_text(written)
    with pytest.raises(InputError, match=rf"card\.json.*{says}"):
        read_calibration(file)


def test_a_calibration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; write it with"):
        read_calibration(tmp_path / "none.json")
