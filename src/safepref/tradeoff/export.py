"""Weights of a trained model at a strength, to be used with nothing but transformers, peft or vLLM.

An adapter keeps its form: its strength is folded into the B matrices, layer by layer, so that it is loaded at
its own scale. Merged weights are added up in float32 and rounded once, to the dtype asked for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from safepref.errors import InputError
from safepref.models import EMBEDDED, WEIGHTS, LoadedModel, attach_adapter, embedded_folder, load_model
from safepref.progress import track
from safepref.store import read_json, write_json

LayerScale = Callable[[str], float]
"""The strength of a layer, 0..1, by its module's name in the base model (`model.layers.0.mlp.up_proj`)."""

ADAPTER_CONFIG = "adapter_config.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREFIX = "base_model.model."
_NOT_A_PRODUCT = {
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "layer_replication": (None,),
}
"""Settings of an adapter whose effect is more than B times A, and the values with which it is not."""


def uniform(value: float) -> LayerScale:
    """The same strength for every layer."""
    return lambda layer: value


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / ADAPTER_CONFIG).exists()


def write_adapter(
    source: Path, target: Path, scale: LayerScale, base: str, *, dtype: torch.dtype | None = None
) -> None:
    """Write an adapter whose strength is folded in: at its own scale it is the source at `scale`.

    Args:
        source: a PEFT adapter of LoRA.
        target: a folder that is there.
        scale: the strength of each layer.
        base: `base_model_name_or_path` of its config.
        dtype: of its matrices; null leaves them as trained.

    Raises:
        InputError: the adapter is more than a product of matrices, so that it has no strength.
    """
    config = read_json(source / ADAPTER_CONFIG)
    _check_product(config, source)
    tensors = {
        name: _cast(_folded(name, tensor, scale), dtype)
        for name, tensor in load_file(source / WEIGHTS).items()
    }
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    write_json(
        target / ADAPTER_CONFIG,
        {**config, "base_model_name_or_path": base, "revision": None, "inference_mode": True},
    )
    _readable(target)


def _check_product(config: dict[str, Any], folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder}: peft_type is {config.get('peft_type')!r}; only LoRA has a strength")
    for name, plain in _NOT_A_PRODUCT.items():
        if config.get(name) not in plain:
            raise InputError(
                f"{folder}: its {ADAPTER_CONFIG} has {name}: {config[name]!r}; such parts cannot be scaled"
            )


def _folded(name: str, tensor: torch.Tensor, scale: LayerScale) -> torch.Tensor:
    layer, found, _ = name.removeprefix(PREFIX).partition(".lora_B.")
    if not found:
        layer, found, _ = name.removeprefix(PREFIX).partition(".lora_embedding_B")
    value = scale(layer) if found else 1.0
    # In float32 even where the adapter was kept in half precision: the product is rounded by who loads it.
    return tensor if value == 1 else tensor.float() * value


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return (tensor if dtype is None else tensor.to(dtype)).contiguous()


def load_base(model_id: str) -> LoadedModel:
    """The base model on the CPU in the dtype that its weights are kept in.

    Raises:
        InputError: it cannot be found or read.
    """
    return load_model(model_id, dtype=_stored_dtype(model_id), device="cpu")


def _stored_dtype(model_id: str) -> str:
    try:
        config = AutoConfig.from_pretrained(
            embedded_folder() if model_id == EMBEDDED else model_id, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError):
        return "float32"  # what is wrong with it is said when it is loaded
    stored = str(getattr(config.get_text_config(), "dtype", None) or config.dtype).removeprefix("torch.")
    return stored if stored in DTYPES else "float32"


@torch.no_grad()
def write_merged(
    loaded: LoadedModel, source: Path, target: Path, scale: LayerScale, dtype: torch.dtype
) -> float | None:
    """Write whole weights: the base with an adapter added, or between the base and a trained model.

    Weights are written as safetensors, in shards where they are large, with config, generation config,
    tokenizer and chat template. `loaded` is changed.

    Args:
        loaded: the base, as `load_base` gives it.
        source: a PEFT adapter, or the folder of a fully trained model.
        target: a folder that is there.
        scale: the strength of each layer.
        dtype: of the weights written.

    Returns:
        What rounding to `dtype` took from the change, as a share of it: the norm of the error over the norm
        of the change; 0 in float32, null where nothing has changed.

    Raises:
        InputError: what was trained does not fit the base, or cannot be added to its weights.
    """
    merge = _merged if is_adapter(source) else _between
    error = change = 0.0
    for weight, exact in merge(loaded, source, scale):
        rounded = exact.to(dtype)
        error += float((rounded.float() - exact).square().sum())
        change += float((exact - weight.data.float()).square().sum())
        weight.data = rounded
    model = loaded.model.unload() if is_adapter(source) else loaded.model
    model.to(dtype).save_pretrained(target)
    AutoTokenizer.from_pretrained(loaded.path, trust_remote_code=False).save_pretrained(target)
    _readable(target)
    return (error / change) ** 0.5 if change else None


Step = tuple[torch.nn.Parameter, torch.Tensor]
"""A weight of the base, and what it becomes, in float32."""


def _merged(loaded: LoadedModel, source: Path, scale: LayerScale) -> Iterator[Step]:
    _check_product(read_json(source / ADAPTER_CONFIG), source)
    attach_adapter(loaded, source)
    # As they were trained: on a base in half precision they were rounded to it.
    for name, parameter in loaded.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    set_peft_model_state_dict(loaded.model, load_file(source / WEIGHTS))
    base = loaded.model.get_base_model()
    owners = Counter(id(weight) for _, weight in base.named_parameters(remove_duplicate=False))
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    with track("merge", len(layers)) as advance:
        for name, layer in layers.items():
            weight = layer.get_base_layer().weight
            if type(layer) is not Linear or owners[id(weight)] > 1:
                odd = "tied to another layer" if type(layer) is Linear else "not linear"
                raise InputError(
                    f"{source}: {name} is {odd} and cannot be merged; export the adapter with --adapter"
                )
            (active,) = layer.active_adapters
            layer.scaling[active] *= scale(name)
            yield weight, weight.data.float() + layer.get_delta_weight(active)
            advance(1)


def _between(loaded: LoadedModel, source: Path, scale: LayerScale) -> Iterator[Step]:
    trained = dict(load_model(str(source), dtype="float32", device="cpu").model.named_parameters())
    weights = dict(loaded.model.named_parameters())
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in trained.items()}:
        raise InputError(f"{source}: its weights do not have the shapes of {loaded.id}")
    with track("merge", len(weights)) as advance:
        for name, weight in weights.items():
            layer = name.rpartition(".")[0]
            yield weight, torch.lerp(weight.data.float(), trained.pop(name).data, scale(layer))
            advance(1)


def _readable(folder: Path) -> None:
    """Give weights the permissions of any new file: safetensors makes files for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~umask)
