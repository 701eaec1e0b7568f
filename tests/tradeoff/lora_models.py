"""A four-layer Llama, LoRA adapters with random weights on it, and what a strength makes of them, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from safepref.models import LoadedModel
from safepref.training.trainer import save_weights
from training.tiny import tiny_model

LAYERS = 4
IDS = torch.arange(3, 15)[None]


def four_layers(**config: Any) -> LoadedModel:
    """The tiny model with four decoder layers; the same weights each time."""
    return tiny_model(num_hidden_layers=LAYERS, **config)


def save_adapter(loaded: LoadedModel, folder: Path, seed: int, rank: int = 2, **options: Any) -> Path:
    """A LoRA adapter as training writes it, whose products are as large as weights."""
    torch.manual_seed(seed)
    targets = ["q_proj", "down_proj"]
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, **{"target_modules": targets, **options}
    )
    adapted = get_peft_model(loaded.model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_weights(adapted, folder)
    loaded.model = adapted.unload()
    return folder


def logits(loaded: LoadedModel) -> torch.Tensor:
    """`(1, T, V)` of the model as it stands."""
    with torch.no_grad():
        found: torch.Tensor = loaded.model(IDS).logits
    return found
