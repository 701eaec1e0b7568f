"""Training itself, on a two-layer model: start values, traces, parts of the loss, what is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from devices import NoDoubles
from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine
from safepref.methods import METHODS
from safepref.models import LoadedModel, variant
from safepref.training import TrainResult

LN2 = math.log(2)
GOLDEN = Path(__file__).with_name("golden_losses.json")


def log(result: TrainResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.log_file.read_text().splitlines()]


def losses(result: TrainResult) -> list[float]:
    return [row["loss"] for row in log(result)]


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_file(result.adapter_dir / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainResult]:
    """Each method's run with every part of the loss switched on, made once."""

    @cache
    def run(name: str) -> TrainResult:
        return tiny.train(
            tmp_path_factory.mktemp(name),
            name,
            examples=tiny.tiny_examples(),
            settings=tiny.settings(anchor=0.2, chosen_nll={"harmful": 0.1}, learning_rate=2e-2),
        )

    return run


@pytest.mark.parametrize("name", METHODS)
def test_golden_loss_trace(name: str, trained: Callable[[str], TrainResult]) -> None:
    """A change that should not alter training must leave these; one that should says so by renewing them."""
    assert losses(trained(name)) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-3)


START = {"dpo": LN2, "rdpo": LN2, "aot": LN2, "aot_unpaired": LN2, "nca": 2 * LN2, "bco": 2 * LN2}
START |= {"ipo": 25.0, "slic": 1.0, "kto": 0.5, "exo": 2.76123, "sppo": 3200.0}


@pytest.mark.parametrize("name", START)
def test_first_step_has_the_value_at_policy_equal_to_reference(
    name: str, trained: Callable[[str], TrainResult]
) -> None:
    first = log(trained(name))[0]
    assert first["preference_loss"] == pytest.approx(METHODS[name].weight * START[name], rel=1e-5)
    for kind in first["kinds"].values():
        assert kind["chosen"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_training_separates_the_answers(name: str, trained: Callable[[str], TrainResult]) -> None:
    last = log(trained(name))[-1]["kinds"]["harmful"]
    assert last["chosen"] - last["rejected"] > 1.0


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["dpo", "bco", *(pytest.param(name, marks=SLOW) for name in ("rdpo", "ipo", "nca", "orpo"))]
)
def test_one_batch_of_eight_walks_like_eight_of_one(name: str, tmp_path: Path) -> None:
    """Gradient accumulation changes nothing for losses that take pairs one by one."""
    options = {
        "examples": tiny.tiny_examples(5),
        "pairs": [replace(pair, weight=0.5 + number % 3) for number, pair in enumerate(tiny.tiny_pairs(20))],
    }
    shared = {"anchor": 0.5, "chosen_nll": {"harmful": 0.4, "harmless": 0.1}, "epochs": 2}
    whole = tiny.train(tmp_path / "a", name, settings=tiny.settings(batch_size=8, **shared), **options)
    split = tiny.train(
        tmp_path / "b", name, settings=tiny.settings(batch_size=1, accumulation=8, **shared), **options
    )
    assert losses(split) == pytest.approx(losses(whole), rel=1e-4)
    assert [row["mean_reward"] for row in log(split)] == pytest.approx(
        [row["mean_reward"] for row in log(whole)], rel=1e-3, abs=1e-6
    )
    for key, value in weights(whole).items():
        assert torch.allclose(value, weights(split)[key], atol=2e-4), key


def test_adapter_loads_with_peft_and_the_base_is_as_before(tmp_path: Path) -> None:
    loaded = tiny.tiny_model()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    result = tiny.train(tmp_path, "dpo", loaded)
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not isinstance(loaded.model, PeftModel)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert sorted(path.name for path in result.adapter_dir.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    rows = [pair.row for pair in tiny.tiny_pairs()]
    base = LogprobEngine(loaded.model).completion_logps(rows).sums.detach()
    tuned = PeftModel.from_pretrained(loaded.model, result.adapter_dir)
    moved = LogprobEngine(tuned).completion_logps(rows).sums.detach() - base
    # What the files do is what the log says that training reached (two steps on by the last update).
    assert moved[:, 0].mean() - moved[:, 1].mean() > 0.1
    config = json.loads((result.adapter_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny/llama"


def test_the_summary_says_what_was_done(tmp_path: Path) -> None:
    steps: list[int] = []
    result = tiny.train(tmp_path, "rdpo", progress=steps.append)
    summary = result.summary
    assert (summary["beta"], summary["params"]) == (0.1, {"label_smoothing": 0.1})
    assert (summary["steps"], summary["planned_steps"], sum(steps)) == (6, 6, 6)
    assert set(summary["displacement"]) == {"harmful", "harmless"}
    assert json.loads(json.dumps(summary)) == summary
    assert [row["step"] for row in log(result)] == [1, 2, 3, 4, 5, 6]
    assert log(result)[-1]["epoch"] == 2.0
    rates = [row["learning_rate"] for row in log(result)]
    assert max(rates) == 5e-3 and rates[-1] < rates[1]


def test_a_finished_run_is_not_repeated_and_a_changed_one_is(tmp_path: Path) -> None:
    first = tiny.train(tmp_path, "dpo")
    saved = (first.adapter_dir / "adapter_model.safetensors").stat().st_mtime_ns
    steps: list[int] = []
    again = tiny.train(tmp_path, "dpo", progress=steps.append)
    assert again.seconds == 0 and again.summary == first.summary and sum(steps) == 6
    assert (first.adapter_dir / "adapter_model.safetensors").stat().st_mtime_ns == saved
    other = tiny.train(tmp_path, "dpo", settings=tiny.settings(beta=0.5))
    assert other.seconds > 0 and other.summary["beta"] == 0.5


def test_equal_runs_are_equal_to_the_bit(tmp_path: Path) -> None:
    first, second = tiny.train(tmp_path / "a", "kto"), tiny.train(tmp_path / "b", "kto")
    assert first.summary == second.summary and log(first) == log(second)
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())


def nll(rows: list[TokenRow], column: int = 0) -> torch.Tensor:
    """Mean NLL per token of each row's completion under the untrained model, by plain forwards."""
    model = tiny.tiny_model().model
    values = []
    for row in rows:
        ids = torch.tensor([row.prompt_ids + row.completions[column]])
        start = len(row.prompt_ids)
        logps = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        values.append(-logps.gather(1, ids[0, start:, None]).mean().item())
    return torch.tensor(values)


def test_parts_of_the_first_loss_are_what_plain_forwards_give(tmp_path: Path) -> None:
    pairs = [replace(pair, weight=1 + number % 2) for number, pair in enumerate(tiny.tiny_pairs(4))]
    examples = [replace(e, weight=0.5 + i) for i, e in enumerate(tiny.tiny_examples(8))]
    row = log(
        tiny.train(
            tmp_path,
            "dpo",
            pairs=pairs,
            examples=examples,
            settings=tiny.settings(
                epochs=1, batch_size=4, anchor=0.5, chosen_nll={"harmful": 2.0, "harmless": 0.25}
            ),
        )
    )[0]
    scale = torch.tensor([float(p.weight) for p in pairs])
    kinds = torch.tensor([2.0 if p.kind == "harmful" else 0.25 for p in pairs])
    assert row["preference_loss"] == pytest.approx(LN2 * scale.mean().item(), rel=1e-5)
    weighted = scale * kinds * nll([p.row for p in pairs])
    assert row["nll_loss"] == pytest.approx(weighted.mean().item(), rel=1e-4)
    share = torch.tensor([e.weight for e in examples])
    # All eight examples fall due with the four pairs.
    assert row["anchor_loss"] == pytest.approx(
        0.5 * (share * nll([e.row for e in examples])).mean().item(), rel=1e-4
    )
    assert row["loss"] == pytest.approx(
        row["preference_loss"] + row["nll_loss"] + row["anchor_loss"], rel=1e-6
    )


def test_orpo_over_the_completion_or_over_prompt_and_completion(tmp_path: Path) -> None:
    pairs = tiny.tiny_pairs(4)
    rows = [pair.row for pair in pairs]
    chosen, rejected = -nll(rows, 0).double(), -nll(rows, 1).double()
    ratio = (chosen - torch.log1p(-chosen.exp())) - (rejected - torch.log1p(-rejected.exp()))
    preference = -0.1 * torch.nn.functional.logsigmoid(ratio)
    short = log(tiny.train(tmp_path / "a", "orpo", pairs=pairs, settings=tiny.settings(epochs=1)))[0]
    assert short["preference_loss"] == pytest.approx((preference - chosen).mean().item(), rel=1e-4)
    whole = log(
        tiny.train(tmp_path / "b", "orpo", pairs=pairs, settings=tiny.settings(epochs=1, nll_over="sequence"))
    )[0]
    texts = [TokenRow(row.prompt_ids[:1], (row.prompt_ids[1:] + row.completions[0],)) for row in rows]
    assert whole["preference_loss"] == pytest.approx((preference + nll(texts)).mean().item(), rel=1e-4)


def test_kl_anchor_starts_at_zero_and_holds_the_policy(tmp_path: Path) -> None:
    shared = {"epochs": 4, "learning_rate": 2e-2}
    examples = tiny.tiny_examples()
    held = log(
        tiny.train(
            tmp_path / "a", examples=examples, settings=tiny.settings(anchor=20.0, anchor_kind="kl", **shared)
        )
    )
    loose = log(
        tiny.train(
            tmp_path / "b", examples=examples, settings=tiny.settings(anchor=1e-6, anchor_kind="kl", **shared)
        )
    )
    assert held[0]["anchor_loss"] == pytest.approx(0, abs=1e-5)
    strayed = sum(row["anchor_loss"] for row in loose[-6:]) / 6 / 1e-6
    kept = sum(row["anchor_loss"] for row in held[-6:]) / 6 / 20
    assert kept < 0.7 * strayed


def test_bco_shift_is_the_mean_of_past_rewards(tmp_path: Path) -> None:
    rows = log(tiny.train(tmp_path, "bco", settings=tiny.settings(epochs=4, beta=0.5, learning_rate=1e-2)))
    rewards = []
    for row in rows:
        changes = row["kinds"].values()
        rewards += [
            0.5 * kind[side] for kind in changes for side in ("chosen", "rejected") for _ in range(kind["n"])
        ]
        assert row["mean_reward"] == pytest.approx(sum(rewards) / len(rewards), abs=1e-5)
    assert abs(rows[-1]["mean_reward"]) > 0.01


def test_weights_of_sorted_batches_are_ignored_and_said(tmp_path: Path) -> None:
    pairs = [replace(pair, weight=3.0) for pair in tiny.tiny_pairs(8)]
    result = tiny.train(tmp_path, "aot", pairs=pairs)
    assert result.summary["weights_ignored"] is True
    assert log(result)[0]["preference_loss"] == pytest.approx(LN2, rel=1e-5)
    assert tiny.train(tmp_path, "nca", pairs=pairs).summary["weights_ignored"] is False


def test_full_fine_tuning_saves_a_model_and_leaves_the_loaded_one(tmp_path: Path) -> None:
    loaded = tiny.tiny_model()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    result = tiny.train(tmp_path, "nca", loaded, settings=tiny.settings(full=True, learning_rate=1e-3))
    assert result.adapter_dir == tmp_path / "models" / "nca"
    assert log(result)[0]["preference_loss"] == pytest.approx(2 * LN2, rel=1e-5)
    trained = AutoModelForCausalLM.from_pretrained(result.adapter_dir).state_dict()
    assert any(not torch.equal(value, trained[name]) for name, value in before.items())
    assert all(torch.equal(value, loaded.model.state_dict()[name]) for name, value in before.items())
    assert (result.adapter_dir / "tokenizer.json").exists()


def test_half_precision_base_has_adapters_in_float32(tmp_path: Path) -> None:
    result = tiny.train(tmp_path, "dpo", tiny.tiny_model(torch.bfloat16))
    assert {value.dtype for value in weights(result).values()} == {torch.float32}
    # Policy and reference run through the same graph: no rounding between them at the first step.
    assert log(result)[0]["preference_loss"] == pytest.approx(LN2, abs=1e-6)


def test_dropout_of_the_model_is_off(tmp_path: Path) -> None:
    loaded = tiny.tiny_model(attention_dropout=0.5)
    assert log(tiny.train(tmp_path, "dpo", loaded))[0]["preference_loss"] == pytest.approx(LN2, rel=1e-5)


def test_displacement_is_measured_for_a_method_without_reference(tmp_path: Path) -> None:
    rows = log(tiny.train(tmp_path, "orpo", settings=tiny.settings(epochs=4)))
    assert rows[0]["kinds"]["harmful"]["chosen"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["kinds"]["harmful"]["chosen"] > 0.5


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path: Path) -> None:
    loaded: LoadedModel = tiny.tiny_model()
    with pytest.raises(
        InputError, match=r"sppo, step \d+: the loss is (nan|inf); lower training.learning_rate"
    ):
        tiny.train(tmp_path, "sppo", loaded, settings=tiny.settings(learning_rate=1e30, epochs=4))
    assert not isinstance(loaded.model, PeftModel)


def test_a_callback_can_stop_early(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            control.should_training_stop = state.global_step == 2

    result = tiny.train(tmp_path, "dpo", callbacks=[Stop()])
    assert (result.summary["steps"], result.summary["planned_steps"], len(log(result))) == (2, 6, 2)
    assert weights(result)


def test_unknown_target_modules_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training.lora_targets is 'q_prj'.*give all-linear"):
        tiny.train(tmp_path, settings=tiny.settings(lora_targets="q_prj"))


def test_training_needs_no_float64_on_its_device(tmp_path: Path) -> None:
    with NoDoubles():
        result = tiny.train(tmp_path, settings=tiny.settings(epochs=1), pairs=tiny.tiny_pairs(4))
    assert all(0 <= row["accuracy"] <= 1 for row in log(result))


def test_the_preference_loss_is_weighted_and_a_loss_with_its_own_nll_gets_no_second(tmp_path: Path) -> None:
    one, half, odds = (
        log(
            tiny.train(tmp_path / str(n), name, settings=tiny.settings(chosen_nll={"harmful": 1.0}, weight=w))
        )
        for n, (name, w) in enumerate((("dpo", 1.0), ("dpo", 0.5), ("orpo", 1.0)))
    )
    assert half[0]["preference_loss"] == pytest.approx(one[0]["preference_loss"] / 2)
    assert half[0]["nll_loss"] == pytest.approx(one[0]["nll_loss"]) and one[0]["nll_loss"] > 0
    assert all(row["nll_loss"] == 0 for row in odds)


def test_full_fine_tuning_of_a_half_precision_model_keeps_its_small_steps(tmp_path: Path) -> None:
    loaded = tiny.tiny_model(torch.bfloat16)
    result = tiny.train(tmp_path, "nca", loaded, settings=tiny.settings(full=True, learning_rate=1e-6))
    name = "model.layers.0.mlp.up_proj.weight"
    before = dict(loaded.model.named_parameters())[name].detach().float().clone()
    with variant(loaded, result.adapter_dir, 0.5):
        between = dict(loaded.model.named_parameters())[name].detach().float().clone()
    moved = (between - before).abs()
    assert 0 < moved.max() < 1e-5
    assert (moved > 0).float().mean() > 0.9
    assert dict(loaded.model.named_parameters())[name].dtype == torch.bfloat16


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_an_adapter_at_a_strength_is_the_same_merged_and_beside_the_weights(
    tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny.tiny_model()
    folder = tiny.train(tmp_path, "dpo", loaded, settings=tiny.settings(learning_rate=1e-2)).adapter_dir
    before = {name: weight.detach().clone() for name, weight in loaded.model.named_parameters()}
    ids = torch.arange(12)[None]
    logits = {}
    with torch.no_grad():
        logits["base"] = loaded.model(ids).logits
        with variant(loaded, folder, value):
            assert not isinstance(loaded.model, PeftModel)
            logits["merged"] = loaded.model(ids).logits
        monkeypatch.setattr("safepref.models._merged_weights", lambda loaded: None)
        with variant(loaded, folder, value):
            assert isinstance(loaded.model, PeftModel)
            logits["beside"] = loaded.model(ids).logits
    torch.testing.assert_close(logits["merged"], logits["beside"], atol=1e-5, rtol=1e-5)
    assert (value == 0) == torch.allclose(logits["merged"], logits["base"], atol=1e-6)
    for name, weight in loaded.model.named_parameters():
        assert torch.equal(weight, before[name])


def test_an_adapter_is_not_merged_where_that_would_change_more_or_less(tmp_path: Path) -> None:
    """A head tied to the embedding, half precision, and an adapter that is more than a product."""
    tied = tiny.tiny_model()
    tied.model.config.tie_word_embeddings = True
    tied.model.lm_head.weight = tied.model.model.embed_tokens.weight
    embedding = tied.model.model.embed_tokens.weight.detach().clone()
    settings = {"tied": {"target_modules": ["lm_head", "q_proj"]}, "dora": {"use_dora": True}, "half": {}}
    for name, options in settings.items():
        config = LoraConfig(
            task_type="CAUSAL_LM", r=2, init_lora_weights=False, **{"target_modules": ["q_proj"], **options}
        )
        loaded = {"tied": tied, "half": tiny.tiny_model(torch.bfloat16)}.get(name) or tiny.tiny_model()
        adapted = get_peft_model(loaded.model, config)
        adapted.save_pretrained(tmp_path / name)
        loaded.model = adapted.unload()
        with variant(loaded, tmp_path / name, 0.5):
            assert isinstance(loaded.model, PeftModel)
        assert not isinstance(loaded.model, PeftModel)
    assert torch.equal(tied.model.model.embed_tokens.weight, embedding)


def test_the_base_is_back_after_an_error_in_a_variant(tmp_path: Path) -> None:
    loaded = tiny.tiny_model()
    folder = tiny.train(tmp_path, "dpo", loaded, settings=tiny.settings(learning_rate=1e-2)).adapter_dir
    before = {name: weight.detach().clone() for name, weight in loaded.model.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), variant(loaded, folder, 0.7):
        raise RuntimeError("stop")
    after = dict(loaded.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())


@pytest.mark.parametrize(("name", "value"), [("bias", "lora_only"), ("modules_to_save", ["lm_head"])])
def test_an_adapter_whose_parts_cannot_be_scaled_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    loaded = tiny.tiny_model()
    folder = tiny.train(tmp_path, "dpo", loaded, settings=tiny.settings()).adapter_dir
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(InputError, match=f"adapter_config.json has {name}"), variant(loaded, folder, 0.5):
        pass
