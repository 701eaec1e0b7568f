"""The held-out probe, and what training does about falling chosen answers."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine
from safepref.methods import METHODS
from safepref.training import TrainingPair, TrainResult, hold_out
from safepref.training.probe import Probe, refusal_openings
from safepref.training.settings import Displacement

EVERY = 2


def run(out: Path, name: str = "dpo", *, steps: list[int] | None = None, **options: Any) -> TrainResult:
    """Steps so long that the chosen answers fall; with a probe of six pairs unless `probe` says otherwise."""
    changes = {"fall": 0.3, "probe": 6, "every": EVERY, **options.pop("control", {})}
    control = Displacement(**changes)
    pairs, probe = hold_out(tiny.tiny_pairs(20), control.probe, 1)
    return tiny.train(
        out,
        name,
        pairs=pairs,
        probe=probe,
        settings=tiny.settings(
            epochs=4, learning_rate=2e-2, save_steps=3, displacement=control, **options.pop("settings", {})
        ),
        progress=None if steps is None else steps.append,
        **options,
    )


def log(result: TrainResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.log_file.read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Stopped(Exception):
    """Stands for any sudden end."""


class StopAt(TrainerCallback):
    """Fails from within once a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Stopped


class Snapshots(TrainerCallback):
    """The adapter's weights after each step."""

    def __init__(self) -> None:
        self.taken: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        lora = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}
        self.taken[state.global_step] = {
            name.replace(".default.", "."): value for name, value in lora.items()
        }


def test_the_probe_is_of_both_kinds_and_its_prompts_are_not_trained_on() -> None:
    pairs = tiny.tiny_pairs(24)
    pairs += [TrainingPair(TokenRow(p.row.prompt_ids, ((5, 6), (7, 8))), p.kind) for p in pairs[:6]]
    trained, probe = hold_out(pairs, 8, seed=2)
    assert len(probe) == 8 and len(trained) == 22
    assert sorted(map(hash, trained + probe)) == sorted(map(hash, pairs))
    assert not {p.row.prompt_ids for p in trained} & {p.row.prompt_ids for p in probe}
    kinds = [p.kind for p in probe]
    assert kinds.count("harmful") >= 3 and kinds.count("harmless") >= 3
    assert set(map(hash, hold_out(pairs[::-1], 8, seed=2)[1])) == set(map(hash, probe))
    assert set(map(hash, hold_out(pairs, 8, seed=3)[1])) != set(map(hash, probe))
    assert hold_out(pairs, 0) == (pairs, [])


def test_a_probe_larger_than_half_the_pairs_is_refused() -> None:
    with pytest.raises(InputError, match=r"probe is 9, but only 6 of 12 pairs can be held out"):
        hold_out(tiny.tiny_pairs(12), 9)


def test_openings_are_those_of_refusals_and_none_begins_with_another() -> None:
    def pair(chosen: tuple[int, ...], rejected: tuple[int, ...], kind: str = "harmful") -> TrainingPair:
        return TrainingPair(TokenRow((3, 4), (chosen, rejected)), kind)

    sorry, sure = (10, 11, 12, 13), (20, 21, 22, 23)
    pairs = [pair((*sorry, 14 + n), (*sure, 24)) for n in range(3)]
    pairs += [pair((*sure, 25), (*sorry, 26))]  # a wrong label
    pairs += [pair((10, 11), (30, 31, 32))]  # all that begins with it is counted once
    pairs += [pair((40, 41, 42, 43), (44, 45), "harmless")]
    assert refusal_openings(pairs) == (sorry,)
    assert refusal_openings(pairs[5:]) == ()


def test_the_refusal_mass_is_the_exact_probability_of_the_openings() -> None:
    loaded = tiny.tiny_model()
    pairs = tiny.tiny_pairs(6)
    openings = ((5, 6, 7), (5, 6, 8), (9, 2))
    found = Probe(pairs, openings).score(LogprobEngine(loaded.model))
    for kind, moved in found.items():
        masses = []
        for pair in (p for p in pairs if p.kind == kind):
            mass = 0.0
            for opening in openings:
                chance, prompt = 1.0, list(pair.row.prompt_ids)
                for token in opening:
                    with torch.no_grad():
                        logits = loaded.model(input_ids=torch.tensor([prompt])).logits[0, -1]
                    chance *= float(logits.softmax(-1)[token])
                    prompt.append(token)
                mass += chance
            masses.append(mass)
        assert moved["refusal_mass"] == pytest.approx(sum(masses) / len(masses), rel=1e-4)
        assert (moved["chosen"], moved["rejected"], moved["n"]) == (0, 0, len(masses))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    ["dpo", *(pytest.param(name, marks=[] if name == "kto" else SLOW) for name in METHODS if name != "dpo")],
)
def test_every_method_is_watched(name: str, tmp_path: Path) -> None:
    result = run(tmp_path, name, control={"action": "lower"})
    probe, rows = result.summary["probe"], log(result)
    assert result.summary["pairs"] == 14 and probe["pairs"] == 6
    last = result.summary["planned_steps"]
    assert [point["step"] for point in probe["curve"]] == [*range(0, last, EVERY), last]
    assert {row["step"]: row["probe"] for row in rows if "probe" in row} == {
        point["step"]: point["kinds"] for point in probe["curve"][1:]
    }
    for point in probe["curve"]:
        assert set(point["kinds"]) == {"harmful", "harmless"}
        for moved in point["kinds"].values():
            assert 0 <= moved["refusal_mass"] <= 1
            assert moved["margin"] == pytest.approx(moved["chosen"] - moved["rejected"])
    assert probe["curve"][0]["kinds"]["harmful"]["chosen"] == 0
    assert probe["curve"][-1]["kinds"]["harmful"]["chosen"] != 0


def test_training_stops_with_the_last_weights_before_the_fall(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen, steps = Snapshots(), list[int]()
    with caplog.at_level(logging.WARNING):
        result = run(tmp_path / "stop", control={"action": "stop"}, callbacks=[seen], steps=steps)
    stopped, curve = result.summary["stopped"], result.summary["probe"]["curve"]
    assert stopped["by"] == "displacement" and "training stops" in caplog.text
    assert result.summary["steps"] == stopped["step"] < result.summary["planned_steps"] == sum(steps)

    def fallen(point: dict[str, Any]) -> bool:
        return any(m["chosen"] < -0.3 and m["margin"] > 0.3 for m in point["kinds"].values())

    assert [point["step"] for point in curve if fallen(point)] == [stopped["step"]] == [curve[-1]["step"]]
    assert stopped["kept"] == curve[-2]["step"]
    saved = weights(result.adapter_dir)
    if stopped["kept"]:
        kept = seen.taken[stopped["kept"]]
        assert all(torch.equal(value, kept[name]) for name, value in saved.items())
    last = seen.taken[stopped["step"]]
    assert not all(torch.equal(value, last[name]) for name, value in saved.items())
    assert result.summary["warnings"][0]["kind"].startswith("held-out ")


def test_the_rate_is_lowered_from_the_fall_on_and_not_before(tmp_path: Path) -> None:
    planned = [row["learning_rate"] for row in log(run(tmp_path / "warn"))]
    result = run(tmp_path / "lower", control={"action": "lower", "lower_to": 0.25})
    lowered, rows = result.summary["lowered"], log(result)
    first = lowered["at"][0]["step"]
    assert lowered["factor"] == 0.25 ** len(lowered["at"])
    for row, rate in zip(rows, planned, strict=True):
        times = sum(entry["step"] < row["step"] for entry in lowered["at"])
        assert row["learning_rate"] == pytest.approx(rate * 0.25**times)
    assert (
        first % EVERY == 0 and rows[first - 1]["rate_factor"] == 0.25 and rows[first - 2]["rate_factor"] == 1
    )


def test_without_a_probe_the_training_pairs_are_looked_at(tmp_path: Path) -> None:
    """What harmful pairs prefer, more harmless ones reject, so that it falls under growing margins."""
    pairs = tiny.tiny_pairs(24)
    clash = [
        TrainingPair(
            TokenRow(one.row.prompt_ids, (other.row.completions[1], one.row.completions[0])), "harmless"
        )
        for one in pairs[:6]
        for other in (pairs[6], pairs[7])
    ]
    control = Displacement(action="stop", every=1, fall=0.2)
    settings = tiny.settings(epochs=8, learning_rate=2e-2, displacement=control)
    pairs = [replace(pair, kind="harmful") for pair in pairs[:6]]
    result = tiny.train(tmp_path, "dpo", pairs=[*pairs, *clash], settings=settings)
    assert "probe" not in result.summary
    stopped, warned = result.summary["stopped"], result.summary["warnings"][0]
    assert (stopped["step"], stopped["kinds"]) == (warned["step"], ["harmful"])
    assert stopped["kept"] == stopped["step"] - 1


def test_a_run_that_only_warns_is_as_it_was(tmp_path: Path) -> None:
    result = run(tmp_path, control={"probe": 0})
    assert not {"probe", "lowered", "stopped", "selection"} & set(result.summary)
    assert not {"probe", "rate_factor", "judged"} & set(log(result)[0])


@pytest.mark.parametrize(
    ("action", "at"),
    [("lower", 7), ("stop", 4), pytest.param("stop", 1, marks=SLOW), pytest.param("lower", 13, marks=SLOW)],
)
def test_a_stopped_run_goes_on_to_equal_weights(action: str, at: int, tmp_path: Path) -> None:
    control = {"action": action}
    whole = run(tmp_path / "whole", control=control)
    assert whole.summary["stopped"]["step"] > at if action == "stop" else whole.summary["lowered"]
    with pytest.raises(Stopped):
        run(tmp_path / "killed", control=control, callbacks=[StopAt(at)])
    resumed = run(tmp_path / "killed", control=control)
    assert same(resumed.adapter_dir, whole.adapter_dir)
    assert resumed.summary == whole.summary
    assert resumed.log_file.read_text() == whole.log_file.read_text()
    assert not (tmp_path / "killed" / "checkpoints" / "dpo").exists()


def test_a_run_killed_after_it_had_stopped_trains_no_further(tmp_path: Path) -> None:
    control = {"action": "stop"}
    whole = run(tmp_path / "whole", control=control)
    assert whole.summary["stopped"]["step"] % 3 == 0, "there is a checkpoint of just that step"
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "adapters").write_text("in the way of the adapter's folder")
    with pytest.raises(OSError):
        run(tmp_path / "killed", control=control)
    (tmp_path / "killed" / "adapters").unlink()
    resumed = run(tmp_path / "killed", control=control)
    assert same(resumed.adapter_dir, whole.adapter_dir) and resumed.summary == whole.summary


@pytest.mark.parametrize(
    ("key", "value"), [("fall", 0.0), ("probe", -1), ("every", 0), ("lower_to", 1.0), ("lower_to", 0.0)]
)
def test_a_value_out_of_its_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"training\.displacement\.{key} is {value}"):
        Displacement(**{key: value})
