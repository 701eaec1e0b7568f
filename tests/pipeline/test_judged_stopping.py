"""Judged stopping and the displacement probe inside a run: what is asked, by whom, and what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import tiny_recipe, write_inputs

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.evaluation import arithmetic_task
from safepref.methods import METHODS
from safepref.pipeline.job import Job
from safepref.pipeline.prompts import Suite
from safepref.pipeline.stopping import small_suite, training_notes
from safepref.recipe import StoppingSection, load_recipe
from safepref.store import read_json, read_jsonl

CONTROLS = {
    "stopping": {"every": 2, "patience": 1, "prompts": 2, "answer_tokens": 4},
    "displacement": {"probe": 4, "every": 2},
}


def prompt(n: int, attack: str | None = None) -> Prompt:
    text = ({"role": "user", "content": f"request {n} {attack}"},)
    return Prompt(f"{n}/{attack}", text, "harmful", category=f"c{n % 4}", attack=attack, split="choose")


def test_the_suite_is_a_small_even_part_of_the_choose_split() -> None:
    choose = Suite(
        safety=[prompt(n, attack) for attack in (None, "a", "b") for n in range(12)],
        benign=[prompt(100 + n) for n in range(12)],
        capability=[arithmetic_task(20)],
    )
    suite = small_suite("be brief", 3, choose, StoppingSection(prompts=8, answer_tokens=5))
    attacks = [p.attack for p in suite.safety]
    assert [attacks.count(name) for name in (None, "a", "b")] == [8, 4, 4]
    assert {p.category for p in suite.safety if p.attack is None} == {"c0", "c1", "c2", "c3"}
    assert len(suite.benign) == 8 and [len(task.rows) for task in suite.capability] == [8]
    assert (suite.answer.max_new_tokens, suite.answer.temperature, suite.system) == (5, 0.0, "be brief")
    assert not suite.toxicity


@pytest.mark.assets
def test_a_run_keeps_the_best_weights_and_its_curve(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    plain = tiny_recipe(tmp_path)
    values: dict[str, Any] = {
        "data": {**plain.data.model_dump(), "general": 0, "ches": 0.2},
        "training": {**plain.training.model_dump(), **CONTROLS, "epochs": 4, "batch_size": 2},
    }
    job = Job(tiny_recipe(tmp_path, methods="dpo", **values), tmp_path / "run")
    job.data()
    assert read_json(job.out / "data" / "counts.json")["ches"]["left_out"] == 2
    assert len(read_jsonl(job.out / "data" / "ches.jsonl")) == 12 and len(job.pairs) == 10
    job.train(METHODS["dpo"])
    summary = job.read_training("dpo")
    curve, kept = summary["selection"]["curve"], summary["selection"]["kept"]
    assert summary["pairs"] == 6 and summary["probe"]["pairs"] == 4
    assert [point["step"] for point in curve] == list(range(2, curve[-1]["step"] + 1, 2))
    assert kept in [point["step"] for point in curve]
    assert all(0 <= point[part] <= 1 for point in curve for part in ("safety", "over_refusal", "capability"))
    assert (job.out / "adapters" / "dpo" / "adapter_model.safetensors").exists()
    asked = read_jsonl(job.out / "work" / "stopping" / "dpo" / f"{kept}" / "safety.jsonl")
    assert {row["split"] for row in asked} == {"choose"} and {row["judge"] for row in asked} == {
        "keyword-refusal"
    }
    notes = training_notes(METHODS["dpo"], summary)
    assert f"ends with the weights of step {kept}" in notes


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "training.stopping.evry=3",
            "unknown key training.stopping.evry; did you mean training.stopping.every?",
        ),
        ("training.stopping.floor=2", "training.stopping.floor is 2"),
        ("training.displacement.action=halt", "training.displacement.action is 'halt'"),
        ("training.displacement.fal=1", "did you mean training.displacement.fall?"),
        ("data.ches=1.5", "data.ches is 1.5"),
        ("data.vet=remove", "data.vet is 'remove'"),
    ],
)
def test_bad_values_of_the_controls_are_named(override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(None, [override])
    assert expected in str(caught.value) and "\n" not in str(caught.value)
