"""Adapters in the upper layers alone: which modules get one, and that nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny import settings, tiny_examples, tiny_model, train
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from safepref.errors import InputError
from safepref.training.placement import lora_config


def layers_with_adapters(model: Any) -> set[str]:
    return {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


@pytest.mark.parametrize(("upper", "layers"), [(1.0, 4), (0.5, 2), (0.26, 1), (0.01, 1)])
def test_the_upper_share_of_the_layers_gets_all_its_linear_modules(upper: float, layers: int) -> None:
    model = tiny_model(num_hidden_layers=4).model
    adapted = get_peft_model(model, lora_config(model, settings(lora_upper=upper)))
    names = layers_with_adapters(adapted)
    assert len(names) == 7 * layers
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in names} == set(range(4 - layers, 4))


def test_layers_of_other_models_are_found_and_named_modules_are_kept() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=32, n_positions=32))
    adapted = get_peft_model(model, lora_config(model, settings(lora_upper=0.34)))
    assert {name.split(".h.")[1].split(".")[0] for name in layers_with_adapters(adapted)} == {"2"}
    model = tiny_model(num_hidden_layers=4).model
    asked = settings(lora_upper=0.5, lora_targets=("q_proj", "v_proj"))
    names = layers_with_adapters(get_peft_model(model, lora_config(model, asked)))
    assert len(names) == 4 and all(name.endswith(("q_proj", "v_proj")) for name in names)


def test_a_model_without_numbered_layers_is_told() -> None:
    with pytest.raises(InputError, match=r"training\.lora_upper is 0\.5"):
        lora_config(nn.Sequential(nn.Linear(2, 2)), settings(lora_upper=0.5))
    with pytest.raises(InputError, match=r"training\.lora_upper is 0"):
        settings(lora_upper=0)
    with pytest.raises(InputError, match=r"training\.lora_upper is 0\.5 with training\.full"):
        settings(lora_upper=0.5, full=True)


class Router(nn.Module):
    """Has a matrix, and is no linear module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 16))


def test_a_router_of_experts_gets_no_adapter() -> None:
    model = tiny_model(num_hidden_layers=4).model
    for layer in model.model.layers:
        layer.mlp.router = Router()
    names = layers_with_adapters(get_peft_model(model, lora_config(model, settings(lora_upper=0.5))))
    assert len(names) == 14 and not any("router" in name for name in names)


def test_lower_layers_compute_what_they_did_before(tmp_path: Path) -> None:
    result = train(tmp_path, settings=settings(lora_upper=0.5), examples=tiny_examples())
    weights = load_file(result.adapter_dir / "adapter_model.safetensors")
    assert weights and all(".layers.1." in name for name in weights)
    loaded = tiny_model()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = loaded.model(ids, output_hidden_states=True).hidden_states
        after = PeftModel.from_pretrained(loaded.model, result.adapter_dir)(
            ids, output_hidden_states=True
        ).hidden_states
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])
