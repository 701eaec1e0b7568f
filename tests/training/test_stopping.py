"""Judged early stopping: the rule, the weights that are kept, and a run that is killed on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_displacement import Snapshots, StopAt, Stopped, same

from safepref.tradeoff.choose import Limits, recommend
from safepref.tradeoff.front import Point
from safepref.training import TrainResult
from safepref.training.stopping import Judged, JudgedPoint, best_of

CURVE = {
    2: (0.5, 0.0, 0.5),
    4: (0.92, 0.3, 0.5),
    6: (0.95, 0.1, 0.5),
    8: (0.99, 0.2, 0.5),
    10: (0.99, 0.3, 0.4),
    12: (1.0, 0.05, 0.6),
}
"""Step to safety, over-refusal and capability: the best of the first ten steps comes after six."""


def judged(patience: int = 2, asked: str = "", steps: list[int] | None = None) -> Judged:
    def score(model: Any, step: int) -> JudgedPoint:
        assert not model.training and not torch.is_grad_enabled()
        if steps is not None:
            steps.append(step)
        return JudgedPoint(step, *CURVE[step])

    return Judged(score=score, every=2, patience=patience, floor=0.9, ceiling=0.5, asked=asked)


def run(out: Path, how: Judged | None, **options: Any) -> TrainResult:
    settings = tiny.settings(epochs=4, save_steps=3)
    return tiny.train(out, "dpo", settings=settings, judged=how, **options)


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(0.95, 0.1, 0.5), (0.99, 0.1, 0.4)], 0),  # able before safer, once both are safe enough
        ([(0.95, 0.3, 0.5), (0.95, 0.1, 0.5)], 1),  # over-refusal counts against ability
        ([(0.8, 0.1, 0.9), (0.9, 0.1, 0.4)], 1),  # below the floor ability counts for nothing
        ([(0.7, 0.0, 0.5), (0.8, 0.4, 0.1)], 1),  # none is safe enough: the safest
        ([(1.0, 0.6, 0.9), (0.2, 0.4, 0.1)], 1),  # over the ceiling safety counts for nothing
        ([(1.0, 0.9, 0.9), (0.2, 0.7, 0.1)], 1),  # all are over it: the one that refuses least
        ([(0.95, 0.1, 0.5), (0.95, 0.1, 0.5)], 0),  # the earlier one of equals
    ],
)
def test_the_rule(points: list[tuple[float, float, float]], best: int) -> None:
    made = [JudgedPoint(step, *values) for step, values in enumerate(points)]
    assert best_of(made, floor=0.9, ceiling=0.5) == best


def test_the_rule_keeps_to_the_recommendations_limits_where_intervals_are_narrow() -> None:
    values = [(s, o, c) for s in (0.85, 0.92, 0.99) for o in (0.1, 0.3, 0.6) for c in (0.2, 0.45)]
    limits = Limits(floor=0.9, ceiling=0.5)
    for low in range(len(values) - 3):
        some = values[low : low + 4]
        points = [
            Point(
                str(at),
                1.0,
                {
                    "safety": {"global": safety, "interval": [safety, safety]},
                    "over_refusal": {"rate": refused},
                    "capability": {"mean": able},
                },
            )
            for at, (safety, refused, able) in enumerate(some)
        ]
        chosen = recommend(points, limits).point
        ours = some[best_of([JudgedPoint(0, *v) for v in some], floor=0.9, ceiling=0.5)]
        if chosen is None:
            assert ours[1] > limits.ceiling
            continue
        theirs = some[int(chosen.method)]
        assert (ours[0] >= limits.floor, ours[1] <= limits.ceiling) == (theirs[0] >= limits.floor, True)
        assert not all(
            a > b
            for a, b in zip((theirs[0], -theirs[1], theirs[2]), (ours[0], -ours[1], ours[2]), strict=True)
        )


def test_the_best_weights_are_kept_and_training_stops(tmp_path: Path) -> None:
    seen, steps = Snapshots(), list[int]()
    result = run(tmp_path, judged(), callbacks=[seen], progress=steps.append)
    found = result.summary["selection"]
    assert [point["step"] for point in found["curve"]] == [2, 4, 6, 8, 10]
    assert found["kept"] == 6 and result.summary["stopped"] == {"by": "judged", "step": 10, "kept": 6}
    assert found["curve"][2] == {"step": 6, "safety": 0.95, "over_refusal": 0.1, "capability": 0.5}
    assert sum(steps) == result.summary["planned_steps"] == 12 and max(seen.taken) == 10
    saved = load_file(result.adapter_dir / "adapter_model.safetensors")
    assert all(torch.equal(value, seen.taken[6][name]) for name, value in saved.items())
    rows = [json.loads(line) for line in result.log_file.read_text().splitlines()]
    assert [row["step"] for row in rows if "judged" in row] == [2, 4, 6, 8, 10]


def test_with_patience_a_later_better_one_is_reached_and_scoring_changes_nothing(tmp_path: Path) -> None:
    result = run(tmp_path / "judged", judged(patience=3))
    assert result.summary["selection"]["kept"] == 12 and "stopped" not in result.summary
    plain = run(tmp_path / "plain", None)
    assert same(result.adapter_dir, plain.adapter_dir)
    assert "selection" not in plain.summary


def test_the_last_step_is_scored_whatever_its_number(tmp_path: Path) -> None:
    def score(model: Any, step: int) -> JudgedPoint:
        return JudgedPoint(step, 0.95, 0.1, step / 100)

    how = Judged(score=score, every=5, patience=1, floor=0.9, ceiling=0.5)
    result = run(tmp_path, how)
    assert [point["step"] for point in result.summary["selection"]["curve"]] == [5, 10, 12]
    assert result.summary["selection"]["kept"] == 12


@pytest.mark.slow
def test_a_fully_trained_model_is_kept_whole(tmp_path: Path) -> None:
    settings = tiny.settings(epochs=4, full=True, learning_rate=1e-3)
    kept, last, plain = (
        tiny.train(tmp_path / name, "dpo", settings=settings, judged=how)
        for name, how in (("kept", judged()), ("last", judged(patience=9)), ("plain", None))
    )
    weights = [load_file(result.adapter_dir / "model.safetensors") for result in (kept, last, plain)]
    assert (kept.summary["selection"]["kept"], last.summary["selection"]["kept"]) == (6, 12)
    assert all(torch.equal(value, weights[2][name]) for name, value in weights[1].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())
    files = [{path.name for path in result.adapter_dir.iterdir()} for result in (kept, plain)]
    assert files[0] == files[1] and "tokenizer.json" in files[0]


@pytest.mark.parametrize("at", [7, pytest.param(10, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_weights(at: int, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", judged())
    with pytest.raises(Stopped):
        run(tmp_path / "killed", judged(), callbacks=[StopAt(at)])
    steps: list[int] = []
    resumed = run(tmp_path / "killed", judged(steps=steps))
    assert steps == [step for step in (8, 10) if step > (at - 1) // 3 * 3]
    assert same(resumed.adapter_dir, whole.adapter_dir)
    assert resumed.summary == whole.summary
    assert resumed.log_file.read_text() == whole.log_file.read_text()
    assert not (tmp_path / "killed" / "checkpoints" / "dpo").exists()


def test_a_finished_run_with_other_judges_is_trained_anew(tmp_path: Path) -> None:
    run(tmp_path, judged(asked="one"))
    steps: list[int] = []
    run(tmp_path, judged(asked="one", steps=steps))
    assert not steps
    run(tmp_path, judged(asked="other", steps=steps))
    assert steps
