"""The heads equal plain log-softmax and plain autograd, and the shortcut is taken only where it is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from logprob_models import CONFIGS, GROUPED, make, with_lora
from torch import Tensor, nn
from transformers import LlamaConfig

from safepref.logprobs.heads import FrozenHead, ModelHead, find_head


def states(n: int = 13, width: int = 8, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(n, width, requires_grad=True)


def frozen_linear(bias: bool, width: int = 8, vocabulary: int = 29) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(width, vocabulary, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_frozen_head_equals_log_softmax_with_its_gradient(bias: bool, chunk: int) -> None:
    linear = frozen_linear(bias)
    targets = torch.randint(29, (13,))
    upstream = torch.randn(13)
    plain = states()
    expected = linear(plain).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    expected.backward(upstream)
    ours = states()
    got = FrozenHead(nn.Identity(), linear).logps(ours, targets, chunk)
    got.backward(upstream)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [2, 64])
def test_frozen_head_kl_equals_torch_kl_div_with_its_gradient(chunk: int) -> None:
    linear = frozen_linear(bias=True)
    reference = states(seed=5).detach()
    upstream = torch.randn(13)
    plain = states()
    expected = nn.functional.kl_div(
        linear(plain).log_softmax(-1), linear(reference).log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    expected.backward(upstream)
    ours = states()
    got = FrozenHead(nn.Identity(), linear).kl(ours, reference, chunk)
    got.backward(upstream)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)


def test_kl_of_a_model_to_itself_is_zero_and_flat() -> None:
    linear, ours = frozen_linear(bias=False), states()
    got = FrozenHead(nn.Identity(), linear).kl(ours, ours.detach().clone(), None)
    got.sum().backward()
    assert ours.grad is not None
    assert got.abs().max() < 1e-6
    assert ours.grad.abs().max() < 1e-6


@pytest.mark.parametrize("chunk", [1, 5, 50])
def test_picked_logps_equal_log_softmax_with_its_gradient(chunk: int) -> None:
    targets = torch.randint(29, (13,))
    upstream = torch.randn(13)
    plain = states(width=29)
    expected = plain.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    expected.backward(upstream)
    ours = states(width=29)
    got = ModelHead(selective=True).logps(ours, targets, chunk)
    got.backward(upstream)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)
    kl = ModelHead(selective=True).kl(ours, states(width=29, seed=4), chunk)
    assert (kl > 0).all()


def test_bfloat16_states_get_fp32_log_probs() -> None:
    linear = frozen_linear(bias=False).to(torch.bfloat16)
    hidden = states().detach().to(torch.bfloat16).requires_grad_()
    targets = torch.randint(29, (13,))
    got = FrozenHead(nn.Identity(), linear).logps(hidden, targets, None)
    expected = linear(hidden).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    got.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "shortcut"),
    [
        ("llama", True),
        ("llama_tied", True),
        ("phi", True),  # a head with a bias
        ("gpt2", True),
        ("falcon_new", True),
        ("bloom", True),
        ("mamba", True),
        ("gemma2", False),  # a soft cap
        ("gemma3", False),
        ("granite", False),  # scaled logits
    ],
)
def test_shortcut_is_taken_only_for_a_plain_linear_head(family: str, shortcut: bool) -> None:
    head = find_head(make(family))
    assert isinstance(head, FrozenHead) == shortcut
    if isinstance(head, ModelHead):
        assert head.selective


def test_small_logits_do_not_hide_a_soft_cap() -> None:
    # 30 tanh(z / 30) is z within rounding for the small logits of a fresh model.
    config: Any = CONFIGS["gemma3"]()
    config.initializer_range = 0.001
    assert isinstance(find_head(make(config)), ModelHead)


def test_trained_or_adapted_head_is_left_to_the_model() -> None:
    assert isinstance(find_head(make("llama", frozen=False)), ModelHead)
    copied = with_lora(make("llama"), modules_to_save=["lm_head"])
    assert isinstance(find_head(copied.get_base_model()), ModelHead)
    tied = make(LlamaConfig(**GROUPED, tie_word_embeddings=True), frozen=False)
    assert isinstance(find_head(tied), ModelHead)
    tied.lm_head.weight.requires_grad_(False)
    assert isinstance(find_head(tied), FrozenHead)
    lora_on_head = with_lora(make("llama"))
    assert isinstance(find_head(lora_on_head.get_base_model()), FrozenHead)
