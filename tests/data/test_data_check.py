"""`safepref data check`, as a user meets it: files, named sets, a model's tokenizer, evaluation prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import make
from typer.testing import CliRunner

from safepref.cli import app
from safepref.data.doctor import check_source
from safepref.data.sources import get_source
from safepref.errors import InputError

GOOD = {"prompt": "How do I pick a lock?", "chosen": "I can't help with that.", "rejected": "Sure."}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def check(*arguments: object) -> tuple[int, list[str]]:
    """Exit code and printed lines."""
    result = CliRunner().invoke(app, ["data", "check", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.splitlines()


def pku(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    """A row in PKU-SafeRLHF's columns."""
    return {
        "prompt": prompt,
        "prompt_source": "synthetic",
        "response_0": rejected,
        "response_1": chosen,
        "is_response_0_safe": False,
        "is_response_1_safe": True,
        "response_0_harm_category": {"Privacy Violation": True},
        "response_1_harm_category": {"Privacy Violation": False},
        "better_response_id": 1,
        "safer_response_id": 1,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer as a model's folder has it."""
    make("chatml").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_named_set_is_checked_like_a_file(tmp_path: Path) -> None:
    rows = [
        pku("How do I forge a ticket?", "Please buy one.", "Print it so."),
        pku("Where does my boss live?", "I can't say.", "In Elm Street."),
        pku("Where does my boss live?", "In Elm Street.", "I can't say."),
        pku("Who lives there?", "", "My boss."),
    ]
    code, lines = check(f"pku-saferlhf:{write(tmp_path / 'rows.jsonl', *rows)}")
    assert code == 1
    errors = [line for line in lines if "warning" not in line]
    assert [line.partition("rows.jsonl:")[2].split(":")[0] for line in errors] == ["3", "4"]
    assert "prefers the opposite of row 2" in errors[0]
    code, lines = check(f"pku_saferlhf:{write(tmp_path / 'rows.jsonl', *rows[:2])}")
    assert code == 0
    assert "clean" in lines[-1]


def test_a_file_in_other_columns_has_a_line_for_each_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"a": 1}, {"a": 2})
    assert [f.row for f in check_source(get_source("pku-saferlhf"), path)] == [1, 2]
    assert check(f"pku-saferlhf:{path}")[0] == 1


def test_prompts_of_a_named_set_are_checked(tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": text, "label": "safe", "type": "x"} for n, text in enumerate(("a\x07b", "c"))]
    findings = check_source(get_source("xstest"), write(tmp_path / "rows.jsonl", *rows))
    assert [(f.row, f.severity) for f in findings if "U+0007" in f.problem] == [(1, "warning")]


def test_a_models_tokenizer_finds_what_text_alone_does_not(tmp_path: Path, folder: Path) -> None:
    long = {**GOOD, "prompt": "Where is it? " * 400}
    path = write(tmp_path / "pairs.jsonl", GOOD, long)
    code, lines = check(path)
    assert (code, len(lines)) == (0, 1)
    code, lines = check(path, "--model", folder)
    assert code == 0
    assert any(":2: prompt: warning:" in line and "more than the limit of 512" in line for line in lines)
    named = f"pku-saferlhf:{write(tmp_path / 'pku.jsonl', pku(long['prompt'], 'No.', 'Yes.'))}"
    assert any("more than the limit of 512" in line for line in check(named, "--model", folder)[1])


def test_a_template_that_writes_bos_twice_makes_every_row_bad(tmp_path: Path) -> None:
    make("llama3").save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "chat_template.jinja"
    config.write_text("{{ bos_token }}" + config.read_text())
    path = write(tmp_path / "pairs.jsonl", GOOD, {**GOOD, "prompt": "Where is my key?"})
    code, lines = check(path, "--model", tmp_path / "model")
    assert code == 1
    assert len([line for line in lines if "BOS twice" in line]) == 2


def test_rows_that_stand_in_evaluation_are_errors(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "prompt": "Name the capital of France."}]
    path = write(tmp_path / "pairs.jsonl", *rows)
    # A row of any label counts, and a near-duplicate is told by its template.
    held_out = write(tmp_path / "held.jsonl", {"prompt": "How do I pick a flower?", "label": "safe"})
    code, lines = check(path, "--against", held_out)
    assert code == 1
    assert len(lines) == 1
    assert ":1: prompt: its template" in lines[0]
    named = f"pku-saferlhf:{write(tmp_path / 'pku.jsonl', pku('How do I pick a lock?', 'No.', 'Yes.'))}"
    assert check(named, "--against", held_out)[0] == 1
    assert check(write(tmp_path / "other.jsonl", rows[1]), "--against", held_out)[0] == 0


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", GOOD)
    for arguments, words in (
        ((path, "--model", tmp_path), "--model"),
        ((path, "--against", tmp_path / "nowhere.jsonl"), "no such file"),
        (("no-such-set",), "one of pku-saferlhf"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check(*arguments)
        assert "\n" not in str(caught.value)
