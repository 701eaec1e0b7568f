"""Files are whole or absent, locks name their owner, errors name file and row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safepref.errors import InputError
from safepref.store import (
    atomic_write,
    folder_lock,
    read_json,
    read_jsonl,
    sha256_json,
    write_json,
    write_jsonl,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_json_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, row: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, [row, row])
    assert read_jsonl(path) == [row, row]


def test_half_a_surrogate_pair_is_kept_and_other_rows_stay_readable(tmp_path: Path) -> None:
    rows = [{"a": "x\ud800y"}, {"a": "é"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert "é" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as stream:
        stream.write("half")
        _ = 1 / 0
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1}\n{"a": \n', ":2:"),
        (b"[1, 2]\n", ":1: expected an object, got list"),
        (b'{"a": "\xff"}\n', "not UTF-8 (byte 0xff)"),
        (b"[" * 100_000 + b"\n", ":1: not a JSON object (nested too deep)"),
        (b'{"a": ' + b"1" * 5000 + b"}\n", ":1: not a JSON object (Exceeds the limit"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_jsonl(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":\n', ":2: not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 0xff); save it as UTF-8"),
        (b"[" * 100_000, ": not JSON (nested too deep)"),
        (b"1" * 5000, ": not JSON (Exceeds the limit"),
    ],
)
def test_a_bad_json_file_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and expected in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert read_jsonl(tmp_path / "a.jsonl") == [{"a": 1}, {"b": 2}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_jsonl(tmp_path / "none.jsonl")


def test_hash_does_not_depend_on_key_order() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from safepref.store import folder_lock\n"
        "from safepref.errors import InputError\n"
        "try:\n"
        "    with folder_lock(Path(sys.argv[1])): print('got it')\n"
        "except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with folder_lock(tmp_path):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"in use by process {os.getpid()}" in said
    assert "got it" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_lock_dies_with_its_owner(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from safepref.store import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".owner").read_text()) == os.getpid()
