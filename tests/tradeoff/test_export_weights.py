"""Exported weights are what `variant` makes of the same adapter or model, without safepref to load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.tiny_run import TEMPLATE, save_tiny_model
from safepref.errors import InputError
from safepref.models import load_model, variant
from safepref.tradeoff.export import load_base, uniform, write_adapter, write_merged
from safepref.training.trainer import save_weights

IDS = torch.tensor([[5, 80, 33, 7, 120, 64]])
LAYERS = ("model.layers.0.", "model.layers.1.")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    save_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(base, tmp_path_factory.mktemp("adapter"))


def trained(base: Path, folder: Path, targets: Any = "all-linear", **more: Any) -> Path:
    """An adapter whose matrices are all random."""
    config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=8, target_modules=targets, **more)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    save_weights(model, folder)
    return folder


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(IDS).logits
    return found


def at_strength(base: Path, source: Path, value: float) -> Tensor:
    loaded = load_model(str(base), dtype="float32", device="cpu")
    with variant(loaded, source, value):
        return logits(loaded.model)


@pytest.mark.parametrize("value", [0.35, 1.0])
def test_a_folded_adapter_is_at_its_own_scale_what_the_source_is_at_a_strength(
    base: Path, adapter: Path, tmp_path: Path, value: float
) -> None:
    write_adapter(adapter, tmp_path, uniform(value), "someone/base")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    assert plain.peft_config["default"].base_model_name_or_path == "someone/base"
    expected = at_strength(base, adapter, value)
    assert (expected - at_strength(base, adapter, 0.0)).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-5)
    # What vLLM reads: products alone, of one rank and scale.
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in load_file(weights(tmp_path)))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["alpha_pattern"]) == (2, 8, {})


def weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def test_each_layer_has_its_own_scale(base: Path, adapter: Path, tmp_path: Path) -> None:
    def scale(layer: str) -> float:
        return 0.0 if layer.startswith(LAYERS[0]) else 0.5 if layer.endswith("down_proj") else 1.0

    (folded := tmp_path / "folded").mkdir()
    (merged := tmp_path / "merged").mkdir()
    write_adapter(adapter, folded, scale, "base")
    before, after = load_file(weights(adapter)), load_file(weights(folded))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        layer = name.removeprefix("base_model.model.").partition(".lora_")[0]
        torch.testing.assert_close(after[name], tensor * (scale(layer) if "lora_B" in name else 1.0))

    write_merged(load_base(str(base)), adapter, merged, scale, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(merged)
    torch.testing.assert_close(logits(plain), at_strength(base, folded, 1.0), rtol=1e-4, atol=1e-5)
    untouched = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for name, tensor in plain.state_dict().items():
        trained_here = name.startswith(LAYERS[1]) and "proj" in name
        assert torch.equal(tensor, untouched[name]) != trained_here, name


def test_merged_weights_are_rounded_once(base: Path, adapter: Path, tmp_path: Path) -> None:
    (exact := tmp_path / "exact").mkdir()
    (half := tmp_path / "half").mkdir()
    assert write_merged(load_base(str(base)), adapter, exact, uniform(0.6), torch.float32) == 0.0
    lost = write_merged(load_base(str(base)), adapter, half, uniform(0.6), torch.bfloat16)
    plain, rounded = (AutoModelForCausalLM.from_pretrained(folder) for folder in (exact, half))
    assert (plain.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(logits(plain), at_strength(base, adapter, 0.6))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor.to(torch.bfloat16), rounded.state_dict()[name]), name
    assert lost is not None and 0 < lost < 0.1
    assert AutoTokenizer.from_pretrained(exact).chat_template == TEMPLATE


def test_a_base_in_half_precision_takes_the_adapter_as_it_was_trained(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    (low := tmp_path / "low").mkdir()
    (merged := tmp_path / "merged").mkdir()
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(low)
    AutoTokenizer.from_pretrained(base).save_pretrained(low)
    loaded = load_base(str(low))
    assert loaded.dtype == torch.bfloat16
    write_merged(loaded, adapter, merged, uniform(0.6), torch.float32)
    expected = at_strength(low, adapter, 0.6)  # loaded in float32, so that nothing was rounded
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(merged)), expected)


def test_a_full_fine_tune_is_interpolated(base: Path, tmp_path: Path) -> None:
    (full := tmp_path / "full").mkdir()
    (merged := tmp_path / "merged").mkdir()
    tuned = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    tuned.save_pretrained(full)
    AutoTokenizer.from_pretrained(base).save_pretrained(full)
    write_merged(load_base(str(base)), full, merged, uniform(0.25), torch.float32)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(merged)), at_strength(base, full, 0.25)
    )


def test_what_is_more_than_a_product_is_refused(base: Path, tmp_path: Path) -> None:
    dora = trained(base, tmp_path / "dora", ["q_proj"], use_dora=True)
    with pytest.raises(InputError, match="use_dora: True; such parts cannot be scaled"):
        write_adapter(dora, tmp_path, uniform(0.5), "base")
    tied = tmp_path / "tied"
    save_tiny_model(tied, tie_word_embeddings=True)
    head = trained(tied, tmp_path / "head", ["lm_head"])
    with pytest.raises(InputError, match=r"lm_head is tied to another layer.*--adapter"):
        write_merged(load_base(str(tied)), head, tmp_path, uniform(0.5), torch.float32)
