"""The command as a user meets it: exit codes, one-line errors, nothing half-done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def safepref(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safepref.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--set", "training.epoch=3"], "did you mean training.epochs?"),
        (["run", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["run", "--from", "nowhere.json"], "nowhere.json: no such file"),
        (["data", "check", "nowhere.jsonl"], "no such file"),
        (["frobnicate"], "No such command"),
        (["evaluate"], "Missing option '--json'"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_to_mend(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    done = safepref(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_check_is_1_with_a_line_for_each_bad_row_and_0_when_clean(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a question", "chosen": "yes", "rejected": "no"},
        {"prompt": "another one", "chosen": "same", "rejected": "same"},
        {"prompt": "a third", "chosen": "", "rejected": "no"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = safepref("data", "check", str(path))
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if "pairs.jsonl:" in line]
    assert any(":2:" in line for line in lines)
    assert any(":3:" in line for line in lines)
    path.write_text(json.dumps(rows[0]) + "\n")
    assert safepref("data", "check", str(path)).returncode == 0


def test_methods_lists_all_twelve() -> None:
    done = safepref("methods")
    assert done.returncode == 0
    for name in ("dpo", "rdpo", "ipo", "slic", "kto", "exo", "nca", "sppo", "aot", "orpo", "bco"):
        assert name in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_on_request_ends_with_3(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        # A shell starts background jobs with SIGINT ignored, and this test may run in one.
        "import os, signal, sys, safepref.cli as cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"cli.app.command('stop')(lambda: os.kill(os.getpid(), {int(number)}))\n"
        "sys.argv = ['safepref', 'stop']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the same command continues" in done.stderr
