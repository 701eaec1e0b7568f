"""A run with reinforcement learning: added to a finished run, killed, continued, reported as a method."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
from tiny_run import killed, start, tiny_recipe, write_inputs

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.models import load_model
from safepref.pipeline import forecast as forecasting
from safepref.pipeline.prompts import Prompts, Suite, gather
from safepref.pipeline.rl import grpo_settings, plan_prompts
from safepref.pipeline.run import run
from safepref.recipe import DataSection, Recipe, RlSection
from safepref.store import read_json, read_jsonl

RL = {
    "start": "dpo",
    "steps": 2,
    "prompts_per_step": 4,
    "generations": 2,
    "max_tokens": 4,
    "learning_rate": 1e-2,
    "save_steps": 1,
}


def one_method(source: Path, **changes: object) -> Recipe:
    recipe = tiny_recipe(source, methods="dpo", **changes)
    asked = recipe.evaluation.model_copy(update={"strengths": (1.0,)})
    return recipe.model_copy(update={"evaluation": asked})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the method alone."""
    gc.freeze()  # what was imported is no garbage, and each stage ends with a search for that
    out = tmp_path_factory.mktemp("runs") / "plain"
    start(one_method(source), out)
    return out


@pytest.fixture(scope="module")
def finished(source: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with reinforcement learning added."""
    out = tmp_path_factory.mktemp("runs") / "rl"
    shutil.copytree(plain, out)
    start(one_method(source, rl=RL), out)
    return out


@pytest.mark.assets
def test_rl_is_added_to_a_run_and_its_adapter_is_a_method(source: Path, plain: Path, finished: Path) -> None:
    before, results = (read_json(folder / "results.json") for folder in (plain, finished))
    assert results["base"] == before["base"] and results["methods"]["dpo"] == before["methods"]["dpo"]
    grpo = results["methods"]["grpo"]
    assert set(grpo["choose"]) == {"1"} and grpo["scores"]["safety"]["n"]
    summary = grpo["training"]
    assert summary["start"] == "dpo" and summary["steps"] == 2
    assert summary["rewards"]["deflected"] == 0.3
    assert len(summary["curve"]["reward"]) == len(summary["curve"]["kl"]) == 2
    rows = read_jsonl(finished / "samples" / "report.grpo.jsonl")
    assert rows and all(row["method"] == "grpo" for row in rows)
    stages = [stage["name"] for stage in read_json(finished / "manifest.json")["stages"]]
    assert stages.index("train:dpo") < stages.index("train:grpo") < stages.index("evaluate:report:grpo")
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Rewards of GRPO" in page and 'id="rewards"' in page
    with pytest.raises(InputError, match=r"holds a run of another recipe .*rl"):
        start(one_method(source), finished)


@pytest.mark.slow
@pytest.mark.assets
def test_a_run_killed_in_grpo_ends_with_the_same_results(
    source: Path, plain: Path, finished: Path, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "run", one_method(source, rl=RL)
    shutil.copytree(plain, out)
    assert killed(start, recipe, out, stage="train:grpo", of="grpo") == -9
    assert (out / "checkpoints" / "grpo").is_dir() and not (out / "adapters" / "grpo").exists()
    start(recipe, out)
    for name in ("results.json", "adapters/grpo/adapter_model.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "support", "rl": RL}, "rl rewards safe answers, and the task is support; set rl to null"),
        ({"rl": {**RL, "start": "nca"}}, "rl.start is 'nca'; give base, or one of methods: dpo"),
        ({"rl": RL, "training": {"full": True}}, "rl trains an adapter; set training.full to false"),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_is_done(
    source: Path, tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        run(one_method(source, **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_adapter_from_the_base_has_the_recipes_shape(source: Path) -> None:
    recipe = one_method(source, training={"lora_upper": 0.5, "lora_rank": 3, "lora_targets": "q_proj"})
    made = grpo_settings(recipe, RlSection(start="base")).adapter
    assert (made.lora_upper, made.lora_rank, made.lora_targets) == (0.5, 3, "q_proj")


def pool(kind: str, count: int) -> list[Prompt]:
    messages = (({"role": "user", "content": f"{kind} request {at}"},) for at in range(count))
    return [Prompt(f"{kind}-{at}", m, kind, category=str(at % 3)) for at, m in enumerate(messages)]  # type: ignore[arg-type]


def test_the_plan_has_every_kind_in_its_share_and_only_train_side_templates() -> None:
    pools = {"harmful": pool("harmful", 9), "harmless": pool("harmless", 5), "general": pool("general", 7)}
    prompts = Prompts(**pools, pairs=[], choose=Suite(), report=Suite(), dropped={}, notes=[])
    section = RlSection(steps=6, prompts_per_step=8)
    plan = plan_prompts(prompts, section, DataSection(attacked=0.5), 0)
    assert len(plan) == 48
    for step in range(6):
        kinds = [prompt.kind for prompt in plan[8 * step : 8 * step + 8]]
        assert (kinds.count("harmful"), kinds.count("harmless"), kinds.count("general")) == (4, 2, 2)
    harmful = [prompt for prompt in plan if prompt.kind == "harmful"]
    attacked = [prompt for prompt in harmful if prompt.attack is not None]
    assert 0.3 < len(attacked) / len(harmful) < 0.7
    assert {prompt.request for prompt in harmful} == {p.text for p in pools["harmful"]}
    from safepref.attacks import get_attack

    for prompt in attacked:
        keys = {f"{prompt.attack}/{t.key}" for t in get_attack(str(prompt.attack)).templates("train")}
        assert prompt.template in keys
    assert plan == plan_prompts(prompts, section, DataSection(attacked=0.5), 0)
    none = RlSection(harmful_share=0, harmless_share=0)
    assert {p.kind for p in plan_prompts(prompts, none, DataSection(), 0)} == {"general"}
    empty = Prompts([], [], [], pairs=[], choose=Suite(), report=Suite(), dropped={}, notes=[])
    with pytest.raises(InputError, match="no harmful prompts are left to train on; set its share to 0"):
        plan_prompts(empty, section, DataSection(), 0)


def test_more_steps_take_longer(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "_rates", lambda loaded, recipe: (1000.0, 100.0))
    plain = one_method(source)
    loaded, prompts = load_model(plain.model.id, dtype="float32", device="cpu"), gather(plain)

    def seconds(steps: int) -> float:
        rl = RlSection(**{**RL, "steps": steps})
        return forecasting.forecast(plain.model_copy(update={"rl": rl}), loaded, prompts, 2)

    alone = forecasting.forecast(plain, loaded, prompts, 1)
    assert alone < seconds(2) < seconds(20)
