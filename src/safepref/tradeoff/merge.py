"""Adapters of several methods combined into one by PEFT's own `add_weighted_adapter`; nothing is trained.

Merging averages what the methods learned: linear (model soups, arXiv 2203.05482), TIES (trim, elect a sign,
take the mean of those that agree; arXiv 2306.01708) and DARE (drop entries by chance and rescale the rest;
arXiv 2311.03099), each over the factors A and B of the adapters or, with `_svd`, over their products.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from safepref.errors import InputError
from safepref.models import LoadedModel, attach_adapter, detach_adapter
from safepref.recipe import Merge
from safepref.training.trainer import save_weights

MERGED = "default"
"""PEFT's name of the only adapter of a folder."""


def merge_adapters(loaded: LoadedModel, adapters: Path, merge: Merge) -> dict[str, Any]:
    """Write the merge of trained adapters as an adapter of its own; the model is as before when it returns.

    Args:
        loaded: the base model.
        adapters: the folder that holds one for each of `merge.methods`; the merge is put beside them, whole,
            under its title.
        merge: how; an adapter merged with itself at equal shares (all kept) is the adapter again.

    Returns:
        What was done: `methods`, `how`, `weights`, and where they matter `density` and `seed`.

    Raises:
        InputError: an adapter that does not fit the model, or adapters that PEFT cannot combine, as those of
            different ranks without svd or cat.
    """
    shares = merge.weights or (1.0 / len(merge.methods),) * len(merge.methods)
    folders, out = [adapters / method for method in merge.methods], adapters / merge.title
    try:
        # Adapters begin with draws from the global generator, as DARE does; it is given back as it was.
        with torch.random.fork_rng():
            attach_adapter(loaded, folders[0])  # refuses what is no adapter of this model
            detach_adapter(loaded)
            loaded.model = model = _merged(loaded, folders, merge, shares)
        part = out.with_name(f".{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        save_weights(model, part)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"tradeoff.merges: {merge.title} cannot be made ({reason})") from error
    finally:
        detach_adapter(loaded)
    done: dict[str, Any] = {"methods": list(merge.methods), "how": merge.how, "weights": list(shares)}
    if _prunes(merge.how):
        done["density"] = merge.density
    if "dare" in merge.how:
        done["seed"] = merge.seed
    return done


def _merged(loaded: LoadedModel, folders: Sequence[Path], merge: Merge, shares: Sequence[float]) -> PeftModel:
    """The model with all adapters and their merge on it, the merge active."""
    # PEFT leaves out of what it saves all that another adapter's name is a part of: layer 0 for "0".
    names = [f"merged_{number}" for number in range(len(folders))]
    plain = {"autocast_adapter_dtype": False}
    model = PeftModel.from_pretrained(loaded.model, folders[0], adapter_name=names[0], **plain)
    loaded.model = model
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, adapter_name=name, **plain)
    torch.manual_seed(merge.seed)
    model.base_model.add_weighted_adapter(
        names,
        peft_weights(shares, merge.how),
        MERGED,
        combination_type=merge.how,
        density=merge.density if _prunes(merge.how) else None,
        svd_full_matrices=False,
    )
    model.set_adapter(MERGED)
    model.peft_config[MERGED].base_model_name_or_path = loaded.id
    return model


def peft_weights(shares: Sequence[float], how: str) -> list[float]:
    """PEFT's weights for these shares, `(K,)`.

    PEFT puts the square root of a weight on each of the factors A and B, so that shares of the factors are
    squared here, and TIES takes a mean where the others take a sum.
    """
    scale = len(shares) if "ties" in how else 1
    power = 1 if how == "cat" or how.endswith("svd") else 2
    return [(scale * share) ** power for share in shares]


def _prunes(how: str) -> bool:
    return "ties" in how or "dare" in how
