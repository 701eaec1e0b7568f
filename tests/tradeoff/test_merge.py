"""Merged adapters: closed forms of the products, what PEFT can load, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from lora_models import four_layers, logits, save_adapter
from peft import PeftModel

from safepref.errors import InputError
from safepref.models import LoadedModel, variant
from safepref.recipe import Merge
from safepref.tradeoff.merge import merge_adapters

HOWS = get_args(Merge.model_fields["how"].annotation)


def merge(**values: Any) -> Merge:
    return Merge.model_validate({"methods": ["dpo", "nca"], "name": "both", **values})


def deltas(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight."""
    adapted = PeftModel.from_pretrained(four_layers().model, folder)
    return {
        name: module.get_delta_weight("default").detach()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight") and "default" in module.lora_A
    }


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return four_layers()


@pytest.fixture(scope="module")
def adapters(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for number, name in enumerate(("dpo", "nca", "kto")):
        save_adapter(loaded, folder / name, seed=number, rank=2 if name != "kto" else 3)
    return folder


@pytest.mark.parametrize("how", HOWS)
def test_an_adapter_merged_with_itself_is_itself(loaded: LoadedModel, adapters: Path, how: str) -> None:
    merge_adapters(loaded, adapters, merge(methods=["dpo", "dpo"], how=how, density=1.0))
    merged, own = deltas(adapters / "both"), deltas(adapters / "dpo")
    assert merged.keys() == own.keys() and len(own) == 8 and all(x.abs().max() > 0.1 for x in own.values())
    for name, delta in own.items():
        torch.testing.assert_close(merged[name], delta, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weights", [None, (0.25, 0.75)])
def test_cat_is_the_weighted_sum_and_svd_its_best_approximation(
    loaded: LoadedModel, adapters: Path, weights: tuple[float, float] | None
) -> None:
    a, b = weights or (0.5, 0.5)
    first, second = deltas(adapters / "dpo"), deltas(adapters / "nca")
    before = logits(loaded)
    done = merge_adapters(loaded, adapters, merge(how="cat", weights=weights))
    assert done == {"methods": ["dpo", "nca"], "how": "cat", "weights": [a, b]}
    assert torch.equal(logits(loaded), before)
    exact = deltas(adapters / "both")
    merge_adapters(loaded, adapters, merge(how="svd", weights=weights))
    close = deltas(adapters / "both")
    for name, delta in exact.items():
        torch.testing.assert_close(delta, a * first[name] + b * second[name], atol=1e-5, rtol=1e-4)
        left = torch.linalg.svdvals(delta)[2:].square().sum()  # what no matrix of rank 2 can have
        assert float((delta - close[name]).square().sum()) == pytest.approx(float(left), rel=1e-3)


def test_the_factors_are_averaged_by_linear(loaded: LoadedModel, adapters: Path) -> None:
    merge_adapters(loaded, adapters, merge(how="linear", weights=(0.3, 0.7)))
    made = [PeftModel.from_pretrained(four_layers().model, adapters / n) for n in ("dpo", "nca", "both")]
    states = [{k: v for k, v in m.state_dict().items() if "lora_" in k} for m in made]
    scale = 2.0  # alpha over rank; the merge has its scale in the factors
    for name, factor in states[2].items():
        wanted = scale**0.5 * (0.3 * states[0][name] + 0.7 * states[1][name])
        torch.testing.assert_close(factor, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["dare_linear", "dare_ties_svd"])
def test_dare_draws_by_its_seed_alone(loaded: LoadedModel, adapters: Path, how: str) -> None:
    def made(seed: int) -> bytes:
        done = merge_adapters(loaded, adapters, merge(how=how, seed=seed))
        assert (done["seed"], done["density"]) == (seed, 0.5)
        return (adapters / "both" / "adapter_model.safetensors").read_bytes()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = made(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert made(0) == first and made(1) != first


def test_a_merge_is_scaled_like_any_adapter(loaded: LoadedModel, adapters: Path) -> None:
    merge_adapters(loaded, adapters, merge(how="ties", density=0.4))
    before = logits(loaded)
    with variant(loaded, adapters / "both", (0.0, 1.0)):
        changed = logits(loaded)
    with variant(loaded, adapters / "both", 0.0):
        none = logits(loaded)
    assert not torch.allclose(changed, before, atol=1e-3)
    torch.testing.assert_close(none, before, atol=1e-5, rtol=1e-5)


def test_other_ranks_need_cat_or_svd(loaded: LoadedModel, adapters: Path) -> None:
    before = logits(loaded)
    with pytest.raises(InputError, match=r"tradeoff.merges: both cannot be made .*same r"):
        merge_adapters(loaded, adapters, merge(methods=["dpo", "kto"], how="ties"))
    assert torch.equal(logits(loaded), before) and not isinstance(loaded.model, PeftModel)
    merge_adapters(loaded, adapters, merge(methods=["dpo", "kto"], how="cat"))
    assert len(deltas(adapters / "both")) == 8
