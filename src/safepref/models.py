"""A causal language model and its tokenizer, from a hub id, a folder or the embedded asset; strengths.

Only safetensors are read and no remote code is run. The embedded default comes as GGUF and is converted once
to a safetensors folder in the cache, because a model loaded from GGUF refuses to be saved.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from safepref import assets
from safepref.errors import InputError
from safepref.hardware import choose_device, choose_dtype, memory_bytes, out_of_memory
from safepref.store import cache_dir, read_json
from safepref.strength import Strength, group_of_layer, levels_of, strength_text

EMBEDDED = "smollm2-135m-instruct"
"""The model id of the embedded default (SmolLM2-135M-Instruct, Apache-2.0)."""
WEIGHTS = "adapter_model.safetensors"
"""PEFT's name for an adapter's weights."""


@dataclass(slots=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer. `path` is the folder or hub id that was read."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    id: str
    path: str
    dtype: torch.dtype
    device: torch.device

    @property
    def parameters(self) -> int:
        """Number of parameters, shared ones counted once."""
        return sum(p.numel() for p in self.model.parameters())


def load_model(
    model_id: str = EMBEDDED,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str | None = None,
    attention: str | None = None,
) -> LoadedModel:
    """Load a causal LM and its tokenizer.

    Args:
        model_id: the embedded default's name, a folder, or a hub id.
        dtype: "auto" (bfloat16 where the hardware multiplies it), "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        quantize: "4bit" for QLoRA (needs bitsandbytes and CUDA).
        attention: transformers' attention implementation; None leaves its default.

    Raises:
        InputError: the model cannot be found or read; one line with the id and the mend.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    path = str(embedded_folder()) if model_id == EMBEDDED else model_id
    options: dict[str, Any] = {"dtype": kind, "use_safetensors": True, "trust_remote_code": False}
    if attention is not None:
        options["attn_implementation"] = attention
    if quantize is not None:
        options |= _quantization(quantize, kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {model_id!r} cannot be loaded ({reason}); give a hub id, a folder with config.json and "
            f"safetensors weights, or {EMBEDDED}"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if quantize is None:
        model.to(where)
    model.eval()
    model.requires_grad_(False)  # training makes its own copy or adapter; a frozen head is scored faster
    return LoadedModel(model, tokenizer, model_id, path, kind, where)


def _quantization(name: str, compute: torch.dtype) -> dict[str, Any]:
    if name != "4bit":
        raise InputError(f"model.quantize is {name!r}; it can be null or 4bit")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": config, "device_map": "auto"}


def embedded_folder() -> Path:
    """The embedded default as a safetensors folder in the cache, converted from GGUF on first use."""
    asset = assets.member("smollm2-135m-instruct.gguf")
    root = cache_dir("models")
    folder = root / f"{EMBEDDED}-{(asset.sha256 or '')[:12]}"
    with FileLock(root / f".{EMBEDDED}.lock"):
        if not (folder / "config.json").exists():
            _convert_gguf(assets.fetch(asset.name), folder)
    return folder


def _convert_gguf(gguf: Path, folder: Path) -> None:
    source = {"gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".convert-"))
    try:
        plain.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def attach_adapter(loaded: LoadedModel, folder: Path) -> None:
    """Put a trained adapter on the model, at strength 1.

    Raises:
        InputError: the folder holds no adapter, one for another base, or one that changes more than products.
    """
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).exists():
            raise InputError(
                f"{folder}: no {name}; give the folder of a PEFT adapter (pickled weights are not read)"
            )
    settings = read_json(folder / "adapter_config.json")
    for name in ("bias", "modules_to_save"):
        if settings.get(name) not in (None, "none", []):
            raise InputError(
                f"{folder}: its adapter_config.json has {name}: {settings[name]!r}; such parts can neither "
                "be scaled nor taken off again; merge the adapter and give the merged model's folder"
            )
    try:
        # In the model's own dtype, as it will be served: casts at every layer would double its cost.
        model = PeftModel.from_pretrained(loaded.model, folder, autocast_adapter_dtype=False)
        if odd := _mismatch(model, folder):
            model.unload()
            raise ValueError(f"{odd} stands in one of the two only")
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: the adapter does not fit {loaded.id} ({reason})") from error
    model.eval()
    loaded.model = model


def _mismatch(model: Any, folder: Path) -> str:
    """A LoRA weight that stands in only one of an adapter's file and what was made of it, or "".

    PEFT loads what fits and only warns of the rest. Copies of the base's own weights may stand in the file.
    """
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        stored = set(file.keys())
    made = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    return min((name for name in stored ^ made if "lora_" in name), default="")


def detach_adapter(loaded: LoadedModel) -> None:
    """Take the adapter off again; the base weights are as before."""
    if isinstance(loaded.model, PeftModel):
        loaded.model = loaded.model.unload()
        loaded.model.eval()


@contextmanager
def strength(model: Any, value: Strength) -> Iterator[None]:
    """Scale every LoRA layer of the active adapter: 0 is the base model, 1 the trained one.

    Raises:
        InputError: a strength by groups of layers for a model whose layers are fewer or cannot be found.
    """
    level = levels_by_name(model, value)
    touched: list[tuple[LoraLayer, str, float]] = []
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            for name, scaling in module.scaling.items():
                touched.append((module, name, scaling))
                module.scaling[name] = scaling * level(path)
    try:
        yield
    finally:
        for layer, name, scaling in touched:
            layer.scaling[name] = scaling


def levels_by_name(model: Any, value: Strength) -> Callable[[str], float]:
    """The level of a strength for what bears a name, a module's or a parameter's.

    Decoder layers have their group's. Of what lies outside of them, embeddings have the first group's and the
    rest (the last norm, the head) the last one's; a head that shares the embedding's weight goes with that.

    Raises:
        InputError: fewer layers than groups, or no list of as many layers as the configuration says.
    """
    levels = levels_of(value)
    if len(levels) == 1:
        return lambda name: levels[0]
    config = model.config.get_text_config()
    layers = int(config.num_hidden_layers)
    stack = next(
        (
            f"{name}."
            for name, m in model.named_modules()
            if isinstance(m, nn.ModuleList) and len(m) == layers
        ),
        None,
    )
    if stack is None or layers < len(levels):
        found = "its decoder layers were not found" if stack is None else f"it has {layers} layers"
        raise InputError(f"strength {strength_text(value)} has {len(levels)} groups of layers, but {found}")
    head = {id(p) for p in (getattr(model.get_output_embeddings(), "weight", None),) if p is not None}
    early = {
        name.removesuffix(".base_layer")  # of an embedding that bears an adapter
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        or ("emb" in name and not head & set(map(id, module.parameters())))
    }

    def level(name: str) -> float:
        if name.startswith(stack):
            layer = int(name.removeprefix(stack).split(".")[0])
            return levels[group_of_layer(layer, layers, len(levels))]
        return levels[0 if name in early or name.rpartition(".")[0] in early else -1]

    return level


@contextmanager
def variant(loaded: LoadedModel, folder: Path | None, value: Strength = 1.0) -> Iterator[None]:
    """The model at a point between its base (0) and what was trained (1); as before when the block ends.

    Args:
        loaded: the base model.
        folder: a PEFT adapter, whose effect is scaled; or a fully trained model, whose weights are
            interpolated with the base's; null for the base itself.
        value: the strength, 0..1, one number or one for each group of decoder layers (`levels_by_name`).

    Raises:
        InputError: the folder holds neither, or does not fit the base; more groups than layers.
    """
    if folder is None:
        yield
    elif (folder / "adapter_config.json").exists():
        attach_adapter(loaded, folder)
        try:
            with strength(loaded.model, value):
                merged = _merged_weights(loaded)
                if merged is None:
                    yield
            if merged is not None:
                detach_adapter(loaded)
                with _replaced(loaded, merged):
                    yield
        finally:
            detach_adapter(loaded)
    else:
        with _interpolated(loaded, folder, value):
            yield


@torch.no_grad()
def _merged_weights(loaded: LoadedModel) -> dict[str, torch.Tensor] | None:
    """The weights with the adapter added at its present scale, by the base's names.

    On a CPU the adapter's two thin products a layer cost a quarter of the model's time. None where adding is
    not the same (half precision would round small steps away, an adapter may be more than a product, a weight
    may be tied to another), where there is no room for a second copy, and on accelerators, where that costs
    more than the products.
    """
    if loaded.device.type != "cpu" or loaded.dtype != torch.float32:
        return None
    base = loaded.model.get_base_model()
    owners = Counter(id(weight) for _, weight in base.named_parameters(remove_duplicate=False))
    room = memory_bytes(loaded.device) / 4
    merged: dict[str, torch.Tensor] = {}
    for name, module in base.named_modules():
        if isinstance(module, ModulesToSaveWrapper | TrainableTokensWrapper):
            return None
        if not isinstance(module, LoraLayer):
            continue
        plain = type(module) is Linear and not module.lora_variant and not any(module.lora_bias.values())
        if not plain or len(module.active_adapters) != 1:
            return None
        weight = module.get_base_layer().weight
        room -= weight.nbytes
        if owners[id(weight)] > 1 or room < 0:  # tied to the embedding, or too large to stand there twice
            return None
        merged[f"{name}.weight"] = weight + module.get_delta_weight(module.active_adapters[0])
    return merged


@contextmanager
def _replaced(loaded: LoadedModel, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """The model with some weights exchanged while the block runs."""
    own = dict(loaded.model.named_parameters())
    kept = {name: own[name].data for name in weights}
    try:
        for name, weight in weights.items():
            own[name].data = weight
        yield
    finally:
        for name, weight in kept.items():
            own[name].data = weight


@contextmanager
def _interpolated(loaded: LoadedModel, folder: Path, value: Strength) -> Iterator[None]:
    trained = load_model(str(folder), dtype="float32", device="cpu").model
    weights = dict(loaded.model.named_parameters())
    other = dict(trained.named_parameters())
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in other.items()}:
        raise InputError(f"{folder}: its weights do not have the shapes of {loaded.id}")
    level = levels_by_name(loaded.model, value)
    # In float32 while it lasts: a step of fine-tuning is smaller than half precision's rounding.
    between = {
        name: torch.lerp(weight.data.float(), other[name].data.to(weight.device), level(name))
        for name, weight in weights.items()
    }
    with _replaced(loaded, between):
        yield
