"""The displacement monitor: what it logs, and when it speaks up."""

from __future__ import annotations

import json
import logging

import pytest

from safepref.training.monitor import Monitor


def run(monitor: Monitor, chosen: list[float], rejected: list[float], kind: str = "harmful") -> None:
    for step, (a, b) in enumerate(zip(chosen, rejected, strict=True), 1):
        monitor.add([(kind, a, b)], {})
        monitor.finish_step(step)


def test_a_step_is_the_mean_over_its_micro_batches() -> None:
    monitor = Monitor("dpo")
    monitor.add([("harmful", 1.0, -1.0), ("harmless", -2.0, -4.0)], {"preference_loss": 1.0})
    monitor.add([("harmful", 3.0, -5.0)], {"preference_loss": 0.5})
    assert monitor.finish_step(1) == {
        "preference_loss": 0.75,
        "kinds": {
            "harmful": {"n": 2, "chosen": 2.0, "rejected": -3.0},
            "harmless": {"n": 1, "chosen": -2.0, "rejected": -4.0},
        },
    }
    assert monitor.finish_step(2) == {"kinds": {}}


def test_falling_chosen_answers_under_a_growing_margin_are_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = Monitor("nca")
    with caplog.at_level(logging.WARNING):
        run(monitor, [-1.0 * step for step in range(1, 20)], [-6.0 * step for step in range(1, 20)])
    assert [warning["kind"] for warning in monitor.warnings] == ["harmful"]
    assert len(caplog.records) == 1 and "harmful pairs have lost" in caplog.text


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (4.0, -30.0),  # chosen rise
        (-10.0, -10.5),  # both fall together: no preference is learned, displacement is not what is wrong
        (-0.5, -30.0),  # chosen hold
    ],
)
def test_healthy_or_other_runs_are_left_alone(chosen: float, rejected: float) -> None:
    monitor = Monitor("dpo")
    run(monitor, [chosen] * 20, [rejected] * 20)
    assert monitor.warnings == []


def test_one_bad_batch_is_not_a_trend() -> None:
    monitor = Monitor("dpo")
    run(monitor, [1.0] * 10 + [-5.0] + [1.0] * 10, [-3.0] * 21)
    assert monitor.warnings == []


def test_kinds_are_told_apart() -> None:
    monitor = Monitor("dpo")
    run(monitor, [5.0] * 20, [-5.0] * 20)
    run(monitor, [-5.0] * 20, [-30.0] * 20, kind="harmless")
    assert [warning["kind"] for warning in monitor.warnings] == ["harmless"]


def test_a_restored_monitor_goes_on_as_if_never_stopped() -> None:
    falling = [-0.5 * step for step in range(30)], [-3.0 * step for step in range(30)]
    whole = Monitor("dpo")
    run(whole, *falling)
    first = Monitor("dpo")
    run(first, falling[0][:7], falling[1][:7])
    second = Monitor("dpo")
    second.restore(json.loads(json.dumps(first.state())))
    for step in range(7, 30):
        second.add([("harmful", falling[0][step], falling[1][step])], {})
        second.finish_step(step + 1)
    assert second.state() == whole.state() and whole.warnings
