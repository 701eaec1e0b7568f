"""A causal language model and its tokenizer, from a hub id, a folder or the embedded asset; LoRA strengths.

Only safetensors are read and no remote code is run. The embedded default comes as GGUF and is converted once
to a safetensors folder in the cache, because a model loaded from GGUF refuses to be saved.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from safepref import assets
from safepref.errors import InputError
from safepref.hardware import choose_device, choose_dtype
from safepref.store import cache_dir, sha256_file, sha256_json

EMBEDDED = "smollm2-135m-instruct"
"""The model id of the embedded default (SmolLM2-135M-Instruct, Apache-2.0)."""


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
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
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


def fingerprint(loaded: LoadedModel) -> str:
    """A hash of the weights and tokenizer as they lie on disk; equal content gives an equal value.

    A hub id is resolved to its cached folder, so the name does not matter. Falls back to hashing the
    loaded parameters where no files are at hand.
    """
    folder = Path(loaded.path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(loaded.path, local_files_only=True))
        except (OSError, ValueError):
            return _parameter_hash(loaded)
    names = ("*.safetensors", "config.json", "tokenizer*.json", "chat_template*")
    found = sorted({path for pattern in names for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in found):
        return _parameter_hash(loaded)
    return sha256_json([str(loaded.dtype), [(path.name, sha256_file(path)) for path in found]])


def _parameter_hash(loaded: LoadedModel) -> str:
    sums = [
        (name, list(tensor.shape), float(tensor.double().sum()), float(tensor.double().square().sum()))
        for name, tensor in loaded.model.state_dict().items()
    ]
    return sha256_json([str(loaded.dtype), sums, loaded.tokenizer.chat_template])


def attach_adapter(loaded: LoadedModel, folder: Path) -> None:
    """Put a trained adapter on the model, at strength 1.

    Raises:
        InputError: the folder holds no adapter, or one for another base.
    """
    if not (folder / "adapter_config.json").exists():
        raise InputError(f"{folder}: no adapter_config.json; give the folder of a PEFT adapter")
    try:
        model = PeftModel.from_pretrained(loaded.model, folder, autocast_adapter_dtype=True)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: the adapter does not fit {loaded.id} ({reason})") from error
    model.eval()
    loaded.model = model


def detach_adapter(loaded: LoadedModel) -> None:
    """Take the adapter off again; the base weights are as before."""
    if isinstance(loaded.model, PeftModel):
        loaded.model = loaded.model.unload()
        loaded.model.eval()


@contextmanager
def strength(model: Any, value: float) -> Iterator[None]:
    """Scale every LoRA layer of the active adapter by `value`: 0 is the base model, 1 the trained one."""
    touched: list[tuple[LoraLayer, str, float]] = []
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name, scaling in module.scaling.items():
                touched.append((module, name, scaling))
                module.scaling[name] = scaling * value
    try:
        yield
    finally:
        for layer, name, scaling in touched:
            layer.scaling[name] = scaling
