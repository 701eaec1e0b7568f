"""A run killed with SIGKILL and started again ends with the weights of one that was never killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from processes import exit_code
from safepref.training import TrainResult

STEPS = 12


def train(out: Path, name: str, progress: Callable[[int], None] | None = None) -> TrainResult:
    """Twelve steps, a checkpoint every other one."""
    settings = tiny.settings(epochs=4, anchor=0.5, chosen_nll={"harmful": 0.3}, save_steps=2)
    return tiny.train(out, name, settings=settings, examples=tiny.tiny_examples(), progress=progress)


def go_on(out: Path, name: str, steps: list[int] | None = None) -> TrainResult:
    return train(out, name, None if steps is None else steps.append)


def doomed(out: Path, name: str, after: int) -> None:
    """Train, and end without warning once `after` steps are finished."""
    torch.set_num_threads(1)
    done = 0

    def progress(steps: int) -> None:
        nonlocal done
        done += steps
        if done >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    train(out, name, progress)


def assert_same(one: TrainResult, other: TrainResult) -> None:
    weights = load_file(one.adapter_dir / "adapter_model.safetensors")
    others = load_file(other.adapter_dir / "adapter_model.safetensors")
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
    assert one.log_file.read_text() == other.log_file.read_text()
    assert one.summary == other.summary


# BCO has state beside the weights (its running mean), KTO fixed batches and mismatched pairs.
@pytest.mark.parametrize("name", ["bco", pytest.param("kto", marks=pytest.mark.slow)])
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is not on this platform's hardware")
def test_killed_run_continues_to_equal_weights(name: str, tmp_path: Path) -> None:
    whole = go_on(tmp_path / "whole", name)
    assert exit_code(doomed, tmp_path / "killed", name, 5) == -signal.SIGKILL
    folder = tmp_path / "killed" / "checkpoints" / name
    assert any(folder.glob("checkpoint-*/safepref.json"))
    assert not (tmp_path / "killed" / "adapters" / name).exists()
    steps: list[int] = []
    resumed = go_on(tmp_path / "killed", name, steps)
    assert steps[0] == 4 and sum(steps) == STEPS, "it went on from the last checkpoint, not from the start"
    assert_same(resumed, whole)
    assert not folder.exists()


class Stopped(Exception):
    """Stands for any sudden end."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """DPO, never stopped."""
    return go_on(tmp_path_factory.mktemp("whole"), "dpo")


def stop_at(step: int, out: Path, name: str) -> None:
    """Train and fail from within at a step; the checkpoints stay as they are at that moment."""
    seen = 0

    def progress(steps: int) -> None:
        nonlocal seen
        seen += steps
        if seen >= step:
            raise Stopped

    with pytest.raises(Stopped):
        train(out, name, progress)


def test_a_checkpoint_cut_off_while_saving_is_not_used(tmp_path: Path) -> None:
    stop_at(5, tmp_path, "dpo")
    folder = tmp_path / "checkpoints" / "dpo"
    cut = folder / "checkpoint-6"
    shutil.copytree(folder / "checkpoint-4", cut)
    (cut / "safepref.json").unlink()
    (cut / "adapter_model.safetensors").write_bytes(b"half")
    with (tmp_path / "logs" / "dpo" / "training_log.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    steps: list[int] = []
    result = go_on(tmp_path, "dpo", steps)
    assert steps[0] == 4 and sum(steps) == STEPS
    rows = [json.loads(line) for line in result.log_file.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))


def test_killed_in_the_last_step(tmp_path: Path, whole: TrainResult) -> None:
    stop_at(STEPS, tmp_path, "dpo")
    assert_same(go_on(tmp_path, "dpo"), whole)


def test_killed_before_the_adapter_is_in_place(tmp_path: Path, whole: TrainResult) -> None:
    """All steps are done and checkpointed: nothing is trained again, the adapter is saved."""

    (tmp_path / "adapters").write_text("in the way of the adapter's folder")
    with pytest.raises(OSError):
        go_on(tmp_path, "dpo")
    assert (tmp_path / "checkpoints" / "dpo" / f"checkpoint-{STEPS}").is_dir()
    (tmp_path / "adapters").unlink()
    steps: list[int] = []
    assert_same(go_on(tmp_path, "dpo", steps), whole)
    assert steps == [STEPS]


def test_checkpoints_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    stop_at(5, tmp_path, "dpo")
    steps: list[int] = []
    other = tiny.train(tmp_path, "dpo", settings=tiny.settings(seed=9), progress=steps.append)
    assert steps == [1] * 6
    fresh = tiny.train(tmp_path / "fresh", "dpo", settings=tiny.settings(seed=9))
    assert other.summary == fresh.summary


def test_nothing_is_written_that_must_be_unpickled_to_be_used(tmp_path: Path) -> None:
    stop_at(3, tmp_path, "dpo")
    names = {path.name for path in (tmp_path / "checkpoints" / "dpo" / "checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in names and "training_args.bin" not in names
