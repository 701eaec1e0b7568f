"""Where adapters go: which of a model's linear modules, and in which of its decoder layers."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from safepref.errors import InputError
from safepref.training.settings import TrainingSettings

_LAYER = re.compile(r"\.[^.]+\.(\d+)\.")
"""A module inside a numbered layer, as PEFT's `layers_to_transform` tells them."""


def lora_config(model: nn.Module, settings: TrainingSettings) -> LoraConfig:
    """The adapter that the settings ask for.

    Upper layers alone are cheaper to train, since nothing flows back through the lower ones, and leave what
    these compute as it is.

    Raises:
        InputError: a share of the layers of a model without numbered layers.
    """
    targets, layers = settings.lora_targets, None
    names: str | list[str] = (
        targets
        if isinstance(targets, str) and targets == "all-linear"
        else ([targets] if isinstance(targets, str) else list(targets))
    )
    if settings.lora_upper < 1:
        inside = _linear_layers(model)
        if not inside:
            raise InputError(
                f"training.lora_upper is {settings.lora_upper!r}: its layers have no numbers; set it to 1"
            )
        depth = 1 + max(layer for layer, _ in inside)
        layers = list(range(depth - max(1, round(settings.lora_upper * depth)), depth))
        if names == "all-linear":  # PEFT takes layers only beside names
            names = sorted({name for _, name in inside})
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=names,
        layers_to_transform=layers,
    )


def _linear_layers(model: Any) -> list[tuple[int, str]]:
    """(layer, last part of the name) of each linear module in a numbered layer."""
    found = []
    for name, module in model.named_modules():
        match = _LAYER.search(f".{name}")
        # What PEFT takes for all-linear; a router of experts has a matrix too, but is neither.
        if match and isinstance(module, nn.Linear | Conv1D):
            found.append((int(match[1]), name.rpartition(".")[2]))
    return found
