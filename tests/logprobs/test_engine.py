"""Log-probs and gradients of every family equal plain separate forward passes (fp32, 1e-4 on sums)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from logprob_models import (
    CONFIGS,
    GROUPED,
    RAGGED,
    TRUNK,
    as_matrix,
    gradients,
    make,
    plain_sums,
    plain_tokens,
    rows,
    with_lora,
)
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine

LAYOUTS = {
    "gemma2": "dense",  # eager attention with a soft cap
    "gpt_neo": "dense",
    "falcon_new": "dense",  # no attention interface
    "falcon_multi_query": "dense",
    "falcon_alibi": "padded",  # raises on a 4-D mask
    "bloom": "padded",
    "mamba": "padded",
}
WEIGHTS = torch.tensor([[0.7, -1.1, 0.4], [1.3, 0.2, -0.6], [-0.9, 0, 0], [0.5, -0.3, 1.0], [0.8, 0, 0]])


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def same_gradients(model: Any, engine: LogprobEngine, given: list[TokenRow]) -> None:
    """One weighted sum of all completions, differentiated both ways."""
    sums = engine.completion_logps(given).sums
    expected = as_matrix(plain_sums(model, given))
    close(sums, expected)
    weights = WEIGHTS[: sums.shape[0], : sums.shape[1]]
    (sums * weights).sum().backward()
    ours = gradients(model)
    (expected * weights).sum().backward()
    theirs = gradients(model)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in theirs.items():
        scale = max(1.0, gradient.abs().max().item())
        assert (ours[name] - gradient).abs().max().item() <= 1e-4 * scale, name


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_equals_separate_forward_passes_with_gradients(family: str, lora: bool) -> None:
    model = with_lora(make(family)) if lora else make(family, frozen=False)
    engine = LogprobEngine(model)
    assert engine.route.layout == LAYOUTS.get(family, "rows"), engine.line
    same_gradients(model, engine, RAGGED)
    same_gradients(model, engine, TRUNK)


@pytest.mark.parametrize("family", ["llama", "falcon_new", "gpt2"])
@pytest.mark.parametrize("backend", ["packed", "padded"])
@pytest.mark.parametrize("token_budget", [1, 30, 5000])
def test_values_do_not_depend_on_how_rows_are_grouped(family: str, backend: str, token_budget: int) -> None:
    model = make(family)
    engine = LogprobEngine(model, backend=backend, token_budget=token_budget)
    close(engine.completion_logps(RAGGED).sums, as_matrix(plain_sums(model, RAGGED)))
    order = [3, 0, 4, 2, 1]
    shuffled = engine.completion_logps([RAGGED[i] for i in order], chunk=3)
    close(shuffled.sums, engine.completion_logps(RAGGED).sums[order])


def test_shapes_counts_and_mask_of_ragged_rows() -> None:
    logps = LogprobEngine(make("llama")).completion_logps(RAGGED)
    assert logps.sums.dtype == torch.float32
    assert logps.counts.tolist() == [[5, 8, 0], [1, 3, 0], [9, 0, 0], [2, 7, 4], [1, 0, 0]]
    assert torch.equal(logps.mask, logps.counts > 0)
    assert (logps.sums[~logps.mask] == 0).all()


def test_token_log_probs_line_up_and_add_up() -> None:
    model = make("qwen3")
    engine = LogprobEngine(model)
    tokens = engine.token_logps(RAGGED)
    assert tokens.values.shape == (5, 3, 9)
    for r, row in enumerate(RAGGED):
        for k in range(len(row.completions)):
            close(tokens.values[r, k][tokens.mask[r, k]], plain_tokens(model, row, k))
    sums = tokens.completions()
    whole = engine.completion_logps(RAGGED)
    close(sums.sums, whole.sums)
    assert torch.equal(sums.counts, whole.counts)


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_kl_to_reference_is_the_adapter_off_models_forward_kl(family: str) -> None:
    model = with_lora(make(family))
    engine = LogprobEngine(model)
    kl = engine.kl_to_reference(RAGGED)
    kl.values.sum().backward()
    ours = gradients(model)
    total = torch.zeros(())
    for r, row in enumerate(RAGGED):
        for k, completion in enumerate(row.completions):
            ids = torch.tensor([row.prompt_ids + completion])
            span = slice(len(row.prompt_ids) - 1, -1)
            with torch.no_grad(), model.disable_adapter():
                reference = model(input_ids=ids).logits[0, span].log_softmax(-1)
            policy = model(input_ids=ids).logits[0, span].log_softmax(-1)
            expected = (reference.exp() * (reference - policy)).sum(-1)
            torch.testing.assert_close(kl.values[r, k][kl.mask[r, k]], expected, rtol=1e-4, atol=1e-5)
            total = total + expected.sum()
    total.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4)
    assert (kl.values[kl.mask] > 0).all()


def test_kl_to_reference_needs_an_adapter() -> None:
    with pytest.raises(InputError, match="PEFT adapters"):
        LogprobEngine(make("llama")).kl_to_reference(RAGGED)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**GROUPED, sliding_window=12),
        Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=12),
    ],
    ids=["mistral", "gemma3"],
)
def test_rows_beyond_an_attention_window_are_padded(config: Any) -> None:
    model = make(config)
    engine = LogprobEngine(model)
    short, long = rows([(3, (4, 5))])[0], rows([(20, (6, 9))])[0]
    shapes = [
        piece.position_ids is not None
        for piece in engine.route.pieces([short, long], engine._shape([short, long]))
    ]
    assert shapes == [
        True,
        False,
    ]
    close(engine.completion_logps([short, long]).sums, as_matrix(plain_sums(model, [short, long])))
    assert "rows over 12 tokens" in engine.line


def test_dense_packs_stay_within_the_models_positions() -> None:
    # GPT-Neo indexes a causal buffer of max_position_embeddings by the place in the sequence.
    model = make("gpt_neo")
    many = rows([(30, (10, 15))] * 5)
    engine = LogprobEngine(model, token_budget=1000)
    close(engine.completion_logps(many).sums, as_matrix(plain_sums(model, many)))


def test_gradient_checkpointing_keeps_the_gradients() -> None:
    model = make("llama", frozen=False)
    model.gradient_checkpointing_enable()
    engine = LogprobEngine(model)
    assert engine.route.layout == "dense"
    model.train()  # checkpointing works in training mode only; the tiny Llama has no dropout
    same_gradients(model, engine, RAGGED)
    late = make("llama", frozen=False)
    engine = LogprobEngine(late)
    assert engine.route.layout == "rows"
    late.gradient_checkpointing_enable()
    late.train()
    same_gradients(late, engine, RAGGED)


def test_lora_on_a_saved_head_copy() -> None:
    model = with_lora(make("llama"), modules_to_save=["lm_head"])
    with torch.no_grad():
        model.get_base_model().lm_head.modules_to_save["default"].weight.add_(0.1)
    same_gradients(model, LogprobEngine(model), TRUNK)


def test_tied_embeddings_that_are_trained_get_both_gradients() -> None:
    model = make("llama_tied", frozen=False)
    same_gradients(model, LogprobEngine(model), RAGGED)


def test_modes_survive_the_self_test() -> None:
    model = with_lora(make("llama"), lora_dropout=0.5)
    model.train()
    model.get_base_model().model.norm.eval()
    before = [module.training for module in model.modules()]
    LogprobEngine(model)
    assert [module.training for module in model.modules()] == before
    first, second = (LogprobEngine(model).completion_logps(RAGGED).sums for _ in range(2))
    assert not torch.allclose(first, second)  # the policy's dropout is on, as its mode says


def test_no_graph_is_kept_without_gradients() -> None:
    model = with_lora(make("llama"))
    engine = LogprobEngine(model)
    with torch.no_grad():
        quiet = engine.completion_logps(RAGGED).sums
    loud = engine.completion_logps(RAGGED).sums
    assert not quiet.requires_grad
    assert loud.requires_grad
    torch.testing.assert_close(quiet, loud.detach(), rtol=0, atol=0)


def test_bfloat16_agrees_within_its_rounding() -> None:
    model = make(LlamaConfig(**{**GROUPED, "initializer_range": 0.1})).to(torch.bfloat16)
    engine = LogprobEngine(model)
    logps = engine.completion_logps(RAGGED)
    expected = as_matrix(plain_sums(model, RAGGED))
    assert logps.sums.dtype == torch.float32
    assert ((logps.sums - expected).abs() <= 0.05 * logps.counts).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "no rows were given"),
        ([TokenRow((1, 2), ((3, 97),))], "row 0 has token id 97, the model's vocabulary ends at 96"),
        (
            [TokenRow((1,), ((3,),)), TokenRow((5,) * 120, ((3,) * 10,))],
            "row 1 has 129 tokens, the model takes 128",
        ),
    ],
)
def test_rows_that_the_model_cannot_take(bad: list[TokenRow], words: str) -> None:
    engine = LogprobEngine(make("llama"))
    with pytest.raises(InputError, match=words):
        engine.completion_logps(bad)


def test_options_out_of_range() -> None:
    model = make("llama")
    with pytest.raises(InputError, match="backend is 'fast'; it can be auto, packed or padded"):
        LogprobEngine(model, backend="fast")
    with pytest.raises(InputError, match="token_budget is 0"):
        LogprobEngine(model, token_budget=0)
