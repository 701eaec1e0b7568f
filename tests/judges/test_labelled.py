"""Readers of labelled rows: every schema, and every way in which a row can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safepref.errors import InputError
from safepref.judges import labelled
from safepref.judges.base import Exchange
from safepref.judges.labelled import Labelled, load_labelled, pyrit_harm, pyrit_objective, pyrit_refusal


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_schema_is_read(tmp_path: Path) -> None:
    rows = load_labelled(
        write(
            tmp_path / "x.jsonl",
            {"prompt": "How?", "response": "So.", "harmful": 1, "category": "theft"},
            {"prompt": "P", "response": "R", "harmful": 0, "action": "3", "model": "m"},
            {
                "prompt": "P",
                "response": "R",
                "label": "1_full_compliance",
                "prompt_type": "contrast_homonyms",
            },
            {"prompt": "P", "response": "R", "label": "1_full_compliance", "prompt_type": "homonyms"},
            {"prompt": "P", "response": "R", "label": "3_partial_refusal", "prompt_type": "contrast_x"},
            {"text": "T", "labels": {"S": 0, "H": 1}},
            {"text": "T", "labels": dict.fromkeys(("S", "H", "V", "HR", "SH"), 0)},
            {"text": "T", "toxic": True},
        )
    )
    assert [row.harmful for row in rows] == [1, 0, 1, 0, 0, 1, 0, 1]
    assert [row.refusal for row in rows] == [None, None, 0, 0, 1, None, None, None]
    assert rows[0].category == "theft" and rows[5].exchange[:2] == ("", "T")


CLEAN = dict.fromkeys(("S", "H", "V", "HR", "SH"), 0)


@pytest.mark.parametrize(
    ("labels", "harmful"),
    [
        ({"S": 0, "H": 1}, 1),
        ({"S3": 1}, 1),
        ({}, None),
        ({"S": 0, "S3": 0}, None),
        ({"HR": 0, "SH": 0, "V": 0, "V2": 0}, None),
        # A known 0 of a kind says nothing of the rest of its parent.
        ({**{k: v for k, v in CLEAN.items() if k != "S"}, "S3": 0}, None),
        (CLEAN, 0),
        ({**CLEAN, "S3": 0, "H2": 0, "V2": 0}, 0),
    ],
)
def test_a_missing_moderation_label_is_unknown(
    tmp_path: Path, labels: dict[str, int], harmful: int | None
) -> None:
    assert load_labelled(write(tmp_path / "x.jsonl", {"text": "T", "labels": labels}))[0].harmful == harmful


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "P", "response": "R", "harmful": 2}, "harmful is 2"),
        ({"prompt": "P", "response": "R", "harmful": None}, "harmful is None"),
        ({"prompt": "P", "response": 7, "harmful": 1}, "'response' is 7"),
        ({"prompt": "P", "response": "R", "label": "maybe"}, "maybe"),
        ({"prompt": "P", "response": "R", "label": ["x"]}, "label"),
        ({"text": "T", "labels": {"S": "yes"}}, "labels.S"),
        ({"text": "T", "toxic": 0.5}, "toxic is 0.5"),
        ({"question": "Q"}, "no known schema"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    good = {"prompt": "P", "response": "R", "harmful": 1}
    path = write(tmp_path / "bad.jsonl", good, row)
    with pytest.raises(InputError) as caught:
        load_labelled(path)
    assert f"{path}:2" in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_name_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pyrit-objective"):
        load_labelled("pyrit-objectiv")
    with pytest.raises(InputError, match="no rows"):
        load_labelled(write(tmp_path / "empty.jsonl"))


@pytest.mark.assets
def test_pyrit_sets_have_the_rows_that_their_authors_count() -> None:
    objective, harm, refusal = pyrit_objective(), pyrit_harm(), pyrit_refusal()
    # 395, 1,005 and 169 rows, 394 and 984 of them distinct pairs.
    assert len(objective) == 394 and sum(row.harmful or 0 for row in objective) in (190, 191)
    assert len(harm) == 984
    assert len(refusal) <= 169 and {row.refusal for row in refusal} == {0, 1}
    assert all(0 <= (row.severity or 0) <= 1 for row in harm)
    # 401 rows have three raters; 15 of them are second copies of others, with the same ratings.
    assert sum(len(row.raters) == 3 for row in harm) == 386


def test_of_copies_the_one_that_most_people_rated_is_kept_in_its_place() -> None:
    rows = [
        Labelled(Exchange("P", "R."), 1, category="first"),
        Labelled(Exchange("Q", "R"), 0),
        Labelled(Exchange("p", "r"), 0, raters=(0.0, 1.0, 0.0), category="second"),
        Labelled(Exchange("p", "r"), 0, raters=(0.0, 1.0, 0.25), category="third"),
    ]
    assert [row.category for row in labelled._distinct(rows)] == ["second", ""]


@pytest.mark.shared
def test_shared_files_are_read(shared_data: Path) -> None:
    for name in ("do_not_answer", "xstest_completions", "surge_toxicity", "openai_moderation"):
        rows = load_labelled(shared_data / "labelled" / f"{name}.jsonl")
        assert len(rows) > 400
        assert {row.harmful for row in rows} - {None} == {0, 1}
        # Of 827 texts of OpenAI's 253 are harmful, 165 have every label 0, and of 409 nobody knows.
        counts = {said: sum(row.harmful == said for row in rows) for said in (0, 1, None)}
        assert name != "openai_moderation" or counts == {0: 165, 1: 253, None: 409}
