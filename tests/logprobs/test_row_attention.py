"""The row attention equals masked SDPA with gradients, and leaves the model as it found it."""

from __future__ import annotations

import pytest
import torch
from logprob_models import RAGGED, make
from torch import Tensor, nn

from safepref.logprobs.attention import NAME, RowBlocks, can_switch, row_attention, rows_attention_forward
from safepref.logprobs.engine import LogprobEngine
from safepref.logprobs.packing import Piece, dense_mask

SEGMENTS = [torch.tensor(s) for s in ([0, 0, 1, 1, 2], [0, 1], [0, 0, 0, 1, 2, 2, 3])]


def piece(trunk: int) -> Piece:
    """Rows of these segments behind a trunk; only what attention reads is filled in."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return Piece(nothing, None, None, trunk, tuple(SEGMENTS), nothing, nothing, nothing)


def tensors(heads: int, groups: int, trunk: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    total = trunk + sum(map(len, SEGMENTS))
    q = torch.randn(1, heads, total, 8, requires_grad=True)
    k = torch.randn(1, groups, total, 8, requires_grad=True)
    v = torch.randn(1, groups, total, 6, requires_grad=True)
    return q, k, v


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 2), (4, 1)])
@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("trunk", [0, 5])
def test_equals_masked_attention(heads: int, groups: int, scaling: float | None, trunk: int) -> None:
    q, k, v = tensors(heads, groups, trunk)
    expected = nn.functional.scaled_dot_product_attention(
        q,
        k.repeat_interleave(heads // groups, 1),
        v.repeat_interleave(heads // groups, 1),
        attn_mask=dense_mask(piece(trunk)),
        scale=scaling,
    ).transpose(1, 2)
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (q, k, v), upstream)
    blocks = RowBlocks(piece(trunk), torch.device("cpu"))
    got, weights = rows_attention_forward(nn.Module(), q, k, v, None, scaling, row_blocks=blocks)
    assert weights is None
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(got, (q, k, v), upstream), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"position_bias": torch.zeros(1)}]
)
def test_refuses_what_it_does_not_compute(options: dict[str, object]) -> None:
    q, k, v = tensors(4, 4)
    blocks = RowBlocks(piece(0), torch.device("cpu"))
    with pytest.raises(NotImplementedError, match="does not cover"):
        rows_attention_forward(nn.Module(), q, k, v, None, row_blocks=blocks, **options)
    with pytest.raises(NotImplementedError, match="not handed through"):
        rows_attention_forward(nn.Module(), q, k, v, None)


def test_the_model_keeps_its_own_attention() -> None:
    model = make("llama")
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    LogprobEngine(model).completion_logps(RAGGED)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="stop"), row_attention(model):
        assert model.config._attn_implementation == NAME
        raise RuntimeError("stop")
    assert model.config._attn_implementation == "sdpa"


def test_switches_only_models_with_an_interface_on_sdpa() -> None:
    model = make("llama")
    assert can_switch(model)
    model.set_attn_implementation("eager")
    assert not can_switch(model)
    assert not can_switch(make("falcon_new"))
