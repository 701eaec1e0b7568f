"""Strengths: their written form, and what a strength by groups of layers does to adapters and full models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lora_models import LAYERS, four_layers, logits, save_adapter
from peft import PeftModel
from torch import nn

from safepref.errors import InputError
from safepref.models import levels_by_name, variant
from safepref.strength import (
    Strength,
    file_point,
    group_of_layer,
    parse_strength,
    point_file,
    point_name,
    strength_json,
    strength_text,
)

levels = st.integers(0, 20).map(lambda n: n / 20)
strengths = st.one_of(levels, st.lists(levels, min_size=1, max_size=5).map(parse_strength))


@given(strengths)
def test_a_strength_is_read_back_from_its_text_its_json_and_its_files_name(value: Strength) -> None:
    assert parse_strength(strength_text(value)) == parse_strength(strength_json(value)) == value
    point = point_name("aot_unpaired", value)
    assert file_point(point_file(point)) == point and "/" not in point_file(point)


def test_equal_groups_are_one_number_and_points_have_one_name() -> None:
    assert parse_strength("0.6/0.60/.6") == 0.6
    assert point_name("nca", parse_strength("1/1/1")) == "nca"
    assert point_name("nca", parse_strength("1/.6/1")) == "nca@1/0.6/1"


@pytest.mark.parametrize("text", ["", "1/", "a", "1/2", "-0.1", "nan", "1//1", "inf", "1,0"])
def test_a_bad_strength_is_named_with_its_place(text: str) -> None:
    with pytest.raises(InputError, match=r"^--strength: .*write 0.8, or 1/0.6/1"):
        parse_strength(text, "--strength")


@given(st.integers(1, 60), st.integers(1, 8))
def test_groups_are_neighbours_of_nearly_one_size(layers: int, groups: int) -> None:
    found = [group_of_layer(layer, layers, groups) for layer in range(layers)]
    assert found == sorted(found) and set(found) <= set(range(groups))
    if groups <= layers:
        sizes = [found.count(group) for group in range(groups)]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


@pytest.mark.parametrize("beside", [False, True])
def test_each_group_of_layers_has_its_own_scale(
    tmp_path: Path, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = four_layers()
    folder = save_adapter(loaded, tmp_path / "adapter", seed=1)
    before = logits(loaded)
    if beside:
        monkeypatch.setattr("safepref.models._merged_weights", lambda loaded: None)
    with variant(loaded, folder, (0.5, 1.0)):
        assert isinstance(loaded.model, PeftModel) == beside
        found = logits(loaded)
    assert torch.equal(logits(loaded), before)
    adapted = PeftModel.from_pretrained(four_layers().model, folder)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name and int(name.split("layers.")[1].split(".")[0]) < LAYERS // 2:
            parameter.data *= 0.5
    with torch.no_grad():
        expected = adapted(torch.arange(3, 15)[None]).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with variant(loaded, folder, 1.0):
        assert not torch.allclose(logits(loaded), expected, atol=1e-3)


def test_a_full_model_is_interpolated_by_groups_and_the_rest_goes_with_its_neighbours(tmp_path: Path) -> None:
    loaded, trained = four_layers(), four_layers()
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter += 1.0
    trained.model.save_pretrained(tmp_path)
    trained.tokenizer.save_pretrained(tmp_path)
    own = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    with variant(loaded, tmp_path, (0.25, 0.5, 0.75, 1.0)):
        moved = {name: float((p.detach() - own[name]).mean()) for name, p in loaded.model.named_parameters()}
    for name, distance in moved.items():
        layer = int(name.split("layers.")[1].split(".")[0]) if "layers." in name else None
        outside = 0.25 if "embed" in name else 1.0
        wanted = outside if layer is None else (layer + 1) / 4
        assert distance == pytest.approx(wanted, abs=1e-5), name
    assert all(torch.equal(p, own[name]) for name, p in loaded.model.named_parameters())


def test_a_tied_head_goes_with_the_embedding_and_an_adapter_on_either_is_found() -> None:
    tied = four_layers(tie_word_embeddings=True)
    level = levels_by_name(tied.model, (0.2, 0.4))
    names = [name for name, _ in tied.model.named_parameters()]
    assert "lm_head.weight" not in names
    assert [level(n) for n in ("model.embed_tokens.weight", "model.norm.weight")] == [0.2, 0.4]
    level = levels_by_name(four_layers().model, (0.2, 0.4))
    assert [level(n) for n in ("model.embed_tokens", "lm_head", "model.layers.1.mlp")] == [0.2, 0.4, 0.2]


def test_a_head_whose_name_speaks_of_embedding_is_late() -> None:
    """GPT-NeoX calls its head embed_out."""

    class Neox(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = four_layers().model.config
            self.embed_in, self.emb_norm = nn.Embedding(8, 4), nn.LayerNorm(4)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(LAYERS))
            self.embed_out = nn.Linear(4, 8, bias=False)

        def get_output_embeddings(self) -> nn.Module:
            return self.embed_out

    level = levels_by_name(Neox(), (0.0, 1.0))
    assert [level(f"{n}.weight") for n in ("embed_in", "emb_norm", "embed_out")] == [0.0, 0.0, 1.0]
    assert [level(f"layers.{n}.weight") for n in range(LAYERS)] == [0.0, 0.0, 1.0, 1.0]


def test_more_groups_than_layers_are_refused(tmp_path: Path) -> None:
    loaded = four_layers()
    folder = save_adapter(loaded, tmp_path / "adapter", seed=1)
    five = parse_strength("1/1/1/1/0")
    with (
        pytest.raises(InputError, match="has 5 groups of layers, but it has 4 layers"),
        variant(loaded, folder, five),
    ):
        pass
    assert not isinstance(loaded.model, PeftModel)
