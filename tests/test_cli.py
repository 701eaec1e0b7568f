"""The command as a user meets it: exit codes, one-line errors, nothing half-done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.tiny_run import command as in_this_process
from safepref.cli import app
from safepref.errors import InputError
from safepref.hardware import out_of_memory
from safepref.recipe import EvaluationSection, Recipe


def safepref(*arguments: str, cwd: Path = Path()) -> subprocess.CompletedProcess[str]:
    """The command as its process ends, without the seconds that a process takes to import everything."""
    with chdir(cwd):
        return subprocess.CompletedProcess(arguments, *in_this_process(*arguments))


def test_a_process_ends_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "safepref.cli", "run", "--set", "training.epoch=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("safepref: ") and done.stderr.count("\n") == 1
    assert "did you mean training.epochs?" in done.stderr
    assert list(tmp_path.iterdir()) == []


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


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Path]]:
    """Runs that commands begin, which do nothing here."""
    import safepref.pipeline.run as pipeline

    seen: list[tuple[Recipe, Path]] = []

    def begin(recipe: Recipe, out: Path, *, workers: int | None, reuse: Sequence[Path] = ()) -> Path:
        seen.append((recipe, out))
        raise InputError("begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "run", begin)
    monkeypatch.setattr(pipeline, "train", begin)
    return seen


def begin(*arguments: str) -> str:
    """A command in this process, up to the point where its run begins; what it printed."""
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, InputError), result.output
    assert str(result.exception) == "begun"
    return result.output


@pytest.mark.parametrize("command", ["run", "train"])
def test_each_recipe_has_its_folder_and_each_command_keeps_its_own(
    started: list[tuple[Recipe, Path]], command: str
) -> None:
    lines = [
        [],
        ["--methods", "paper"],
        ["--methods", "nca, dpo"],
        ["--model", "a/b"],
        ["--model", "a/c"],
        ["--set", "seed=1"],
        ["--set", "seed=2"],
        ["--methods", "nca", "--set", "seed=1"],
        ["--out", "elsewhere", "--methods", "nca"],
    ]
    for line in lines:
        printed = begin(command, *line)
        assert f"Run folder: {started[-1][1]}\n" in printed
    folders = [str(out) for _, out in started]
    assert folders[:3] == ["runs/demo", "runs/demo-paper", "runs/demo-nca-dpo"]
    for folder, opening in zip(folders[3:8], ["demo"] * 4 + ["demo-nca"], strict=True):
        assert re.fullmatch(rf"runs/{opening}-[0-9a-f]{{8}}", folder)
    assert folders[8] == "elsewhere"
    assert len(set(folders)) == len(folders)
    for line in lines:
        begin(command, *line)
    assert [str(out) for _, out in started[len(lines) :]] == folders


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_run_folder_alone_goes_on_with_its_own_recipe(
    started: list[tuple[Recipe, Path]], tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: mine\nseed: 7\n")
    begin(command, "--out", str(folder))
    begin(command, "--out", str(folder), "--set", "seed=8")
    assert [(recipe.name, recipe.seed) for recipe, _ in started] == [("mine", 7), ("mine", 8)]


def test_a_recipe_is_validated_once(
    started: list[tuple[Recipe, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import safepref.recipe.reading as module

    seen: list[str] = []
    parse = module.parse_recipe
    monkeypatch.setattr(
        module, "parse_recipe", lambda values, where: seen.append(where) or parse(values, where)
    )
    begin("run")
    assert len(seen) == 1


def test_a_strength_without_an_adapter_is_refused(tmp_path: Path) -> None:
    done = safepref("evaluate", "--strength", "0.5", "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--adapter" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluate_measures_as_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safepref.pipeline.evaluate as pipeline

    seen: list[pipeline.EvaluationRequest] = []
    monkeypatch.setattr(pipeline, "evaluate_models", lambda request, *_: seen.append(request))
    result = CliRunner().invoke(app, ["evaluate", "--json", str(tmp_path / "x.json")])
    assert result.exit_code == 0, result.output
    asked = EvaluationSection()
    assert seen[0].answer_tokens == asked.answer_tokens
    assert seen[0].continuation_tokens == asked.continuation_tokens
    assert seen[0] == pipeline.EvaluationRequest(models=seen[0].models)
    suite = pipeline._suite(pipeline.EvaluationRequest(models=("x",), limit=1))
    assert suite.answer.max_new_tokens == asked.answer_tokens
    assert suite.continuation.max_new_tokens == asked.continuation_tokens


def test_the_python_side_is_what_the_commands_call() -> None:
    import safepref
    from safepref.pipeline import evaluate, run

    assert safepref.evaluate is evaluate.evaluate_models
    assert safepref.EvaluationRequest is evaluate.EvaluationRequest
    assert (safepref.run, safepref.train) == (run.run, run.train)
    for name in safepref.__all__:
        assert getattr(safepref, name) is not None


def test_a_want_of_memory_is_known_in_torchs_own_words() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**56, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes differ"))
