"""Two processes train like one that accumulates twice as many micro-batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed package")
def test_two_processes_are_one_that_accumulates(tmp_path: Path) -> None:
    name = "bco"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [*launcher, str(Path(tiny.__file__)), str(tmp_path / "two"), name]
    done = subprocess.run(program, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one = tiny.train(
        tmp_path / "one",
        name,
        settings=tiny.settings(**tiny.SPLIT, accumulation=2),
        examples=tiny.tiny_examples(),
    )
    rows = [json.loads(line) for line in one.log_file.read_text().splitlines()]
    log = tmp_path / "two" / "logs" / name / "training_log.jsonl"
    others = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == len(others) == 6
    for row, other in zip(rows, others, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-4)
        assert other["mean_reward"] == pytest.approx(row["mean_reward"], rel=1e-3, abs=1e-6)
        assert other["kinds"].keys() == row["kinds"].keys()
    adapter = tmp_path / "two" / "adapters" / name / "adapter_model.safetensors"
    weights = load_file(one.adapter_dir / "adapter_model.safetensors")
    for key, value in load_file(adapter).items():
        assert torch.allclose(value, weights[key], atol=2e-4), key
