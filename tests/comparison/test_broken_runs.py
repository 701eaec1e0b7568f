"""Run folders and samples that something has spoiled: one clear line, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_rows import run_folder, safety

from safepref.comparison import compare
from safepref.errors import InputError
from safepref.store import write_jsonl


def run(folder: Path) -> Path:
    rows = {"report.base": safety([False] * 20), "report.nca": safety([True] * 20)}
    return run_folder(folder, rows, recommended=("nca", 1.0))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("results.json", b"[]", "not the results of a run; name a point"),
        ("results.json", b'{"recommended": [1]}', "not the results of a run"),
        ("results.json", b'{"methods": ["nca"]}', "not the results of a run"),
        ("results.json", b'{"recommended": {"method": "nca"}}', "strength 'None' is no number"),
        ("results.json", b'"\xe9"', "not UTF-8 (byte 0xe9)"),
        ("judges.json", b"[]", "not the judges of a run"),
        ("judges.json", b'{"report": "\xe9"}', "not UTF-8"),
        (
            "judges.json",
            b'{"report": {"judge": "report", "members": 3}}',
            "the members of report are no judges",
        ),
        ("judges.json", b'{"report": {"judge": "report", "members": ["x"]}}', "are no judges"),
        ("recipe.yaml", b"a: [", "is not YAML"),
        ("recipe.yaml", b"\xe9: 1", "cannot be read"),
        ("recipe.yaml", b"- a", "expected keys and values"),
    ],
)
def test_a_spoiled_file_of_a_run_is_one_line(tmp_path: Path, file: str, content: bytes, words: str) -> None:
    whole, spoiled = run(tmp_path / "whole"), run(tmp_path / "spoiled")
    (spoiled / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        compare(f"{whole}:base", spoiled)
    assert words in str(caught.value) and str(spoiled / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_with_other_sections_is_no_error(tmp_path: Path) -> None:
    whole, odd = run(tmp_path / "whole"), run(tmp_path / "odd")
    (odd / "recipe.yaml").write_text("evaluation: 3\nmodel: null\n")
    assert compare(f"{whole}:base", odd).findings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite": ["safety"]}, "suite is ['safety']; one of"),
        ({"judge": None}, "judge is None; the name of one"),
        ({"model": ["m"]}, "model is ['m']; a text"),
    ],
)
def test_a_row_that_nothing_can_be_told_from_is_named(tmp_path: Path, change: dict, words: str) -> None:
    rows = safety([True] * 20)
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_jsonl(tmp_path / "b.jsonl", [*rows[:3], {**rows[3], **change}, *rows[4:]])
    with pytest.raises(InputError) as caught:
        compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert words in str(caught.value) and "b.jsonl:4" in str(caught.value)


def test_versions_of_any_kind_are_compared(tmp_path: Path) -> None:
    rows = [
        {**row, "verdicts": {"report": {"verdict": row["verdict"], "version": ["x"]}}}
        for row in safety([True] * 20)
    ]
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl").judge == "report"
