"""Tiny random models of many families, rows for them, and a plain oracle: one completion a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from safepref.logprobs import TokenRow

VOCABULARY = 97
# A wide initialisation: at the usual 0.02 a tiny model hardly depends on its context; no leak would show.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
FALCON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaConfig(**GROUPED),
    "llama_tied": lambda: tf.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": lambda: tf.MistralConfig(**GROUPED),
    "qwen2": lambda: tf.Qwen2Config(**GROUPED),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=8),
    "gemma2": lambda: tf.Gemma2Config(**GROUPED, head_dim=8, sliding_window=100),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=100, final_logit_softcapping=30.0
    ),
    "phi": lambda: tf.PhiConfig(**COMMON),
    "granite": lambda: tf.GraniteConfig(**GROUPED, logits_scaling=8.0),
    "neox": lambda: tf.GPTNeoXConfig(**COMMON),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3
    ),
    "gpt_neo": lambda: tf.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=100,
        max_position_embeddings=128,
        initializer_range=0.3,
    ),
    "falcon_new": lambda: tf.FalconConfig(**FALCON, num_kv_heads=2, new_decoder_architecture=True),
    "falcon_multi_query": lambda: tf.FalconConfig(**FALCON, multi_query=True, new_decoder_architecture=False),
    "falcon_alibi": lambda: tf.FalconConfig(**FALCON, alibi=True, new_decoder_architecture=False),
    "bloom": lambda: tf.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3
    ),
    "mamba": lambda: tf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.3
    ),
}


def make(family: str | Any, *, frozen: bool = True) -> Any:
    """A tiny model in evaluation mode, the same at every call."""
    torch.manual_seed(0)
    config = CONFIGS[family]() if isinstance(family, str) else family
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    # Norms and biases start at constants; moved, a mistake in them shows too.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(not frozen)


def with_lora(model: Any, **options: Any) -> Any:
    """The model under a LoRA with random, not zero, weights."""
    torch.manual_seed(1)
    # PEFT refuses Mamba's output projection.
    targets = ["in_proj", "x_proj"] if model.config.model_type == "mamba" else "all-linear"
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **options)
    return get_peft_model(model, config).eval()


def rows(shape: Sequence[tuple[int, Sequence[int]]], seed: int = 2) -> list[TokenRow]:
    """Random rows: (prompt length, completion lengths) each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    return [TokenRow(draw(prompt), tuple(draw(length) for length in lengths)) for prompt, lengths in shape]


RAGGED = rows([(11, (5, 8)), (1, (1, 3)), (17, (9,)), (6, (2, 7, 4)), (9, (1,))])
"""K of 1, 2 and 3, a one-token prompt and one-token completions."""


TRUNK = [
    TokenRow(tuple(range(3, 16)) + row.prompt_ids, row.completions)
    for row in rows([(4, (5, 8)), (1, (1, 3)), (9, (7,))])
]
"""Rows whose prompts have one beginning of 13 tokens."""


def plain_tokens(model: nn.Module, row: TokenRow, k: int) -> Tensor:
    """Log-probs of one completion's tokens from a plain forward pass of its own, differentiable."""
    ids = torch.tensor([row.prompt_ids + row.completions[k]])
    logits = model(input_ids=ids).logits[0].float()
    start = len(row.prompt_ids)
    picked = [logits[t - 1].log_softmax(-1)[ids[0, t]] for t in range(start, ids.shape[1])]
    return torch.stack(picked)


def plain_sums(model: nn.Module, given: Sequence[TokenRow]) -> list[list[Tensor]]:
    """Summed log-probs of all completions, each on its own."""
    return [[plain_tokens(model, row, k).sum() for k in range(len(row.completions))] for row in given]


def as_matrix(sums: list[list[Tensor]]) -> Tensor:
    """(R, K) with 0 where a row has fewer completions."""
    width = max(map(len, sums))
    zero = torch.zeros(())
    return torch.stack([torch.stack([*row, *[zero] * (width - len(row))]) for row in sums])


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all gradients by name; the model's own are cleared."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
