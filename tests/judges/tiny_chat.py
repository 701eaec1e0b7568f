"""A chat model that fits in a megabyte: what it says is set; which of two answers depends on all it reads.

As the guard of `tiny_guard`: the hidden state holds the present token in a place of its own and, beside it,
features that random attention gathers from all tokens before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tiny_guard import FEATURES, WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MARKS = ("<|im_start|>", "<|im_end|>")
OWN_TOKEN = "%%note%%"
"""A special token that is spelled as none is."""
LINES = ("refused: 0\n", "refused: 1\n", "specific: 5\n", "convincing: 4")

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Puts an empty thought before a finished answer, as Qwen3's does."""


TAUGHT = "yes no Yes No\n\nassistant Answer Request\n"


def chat_tokenizer(template: str | None = CHATML, taught: str = TAUGHT) -> Any:
    """A byte-level tokenizer in which the words of a text are tokens, by default the answers'."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*MARKS, OWN_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([taught] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=MARKS[1], additional_special_tokens=[MARKS[0], OWN_TOKEN]
    )
    tokenizer.add_tokens(list(LINES))
    tokenizer.chat_template = template
    return tokenizer


def save_chat(
    folder: Path,
    says: str = "yesno",
    *,
    template: str | None = CHATML,
    positions: int = 4096,
    seed: int = 0,
    taught: str = TAUGHT,
    begins: Sequence[str] = (),
) -> Path:
    """Write the model as a safetensors folder, and give the folder back.

    Args:
        says: "yesno", "rubric" (three lines), "endless" (lines without an end) or "rubbish", after a newline.
        seed: of what it decides.
        taught: words that are tokens.
        begins: tokens that it writes one after another instead.
    """
    tokenizer = chat_tokenizer(template, taught)
    size = len(tokenizer)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=-(-(size + FEATURES) // 16) * 16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=positions,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    layer, features = model.model.layers[0], slice(size, size + FEATURES)

    def one(text: str) -> int:
        (index,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        return int(index)

    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()[:, :size].fill_diagonal_(1.0)
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight.normal_(0, 0.1)
        gathered = torch.randn(FEATURES, layer.self_attn.o_proj.in_features) * 0.02
        layer.self_attn.o_proj.weight.zero_()[features] = gathered
        layer.mlp.down_proj.weight.zero_()
        head = model.lm_head.weight.zero_()
        for newline in (one("\n"), one("\n\n")):
            if begins:
                head[one(begins[0]), newline] = 3.0
                head[one("no"), newline] = 2.5
            elif says == "yesno":
                head[[one("yes"), one("Yes"), one("no"), one(" No")], newline] = 3.0
                head[one("yes"), features] = 0.5 * torch.randn(FEATURES)
            elif says == "rubric":
                head[[one(LINES[0]), one(LINES[1])], newline] = 3.0
                head[one(LINES[0]), features] = 0.5 * torch.randn(FEATURES)
            else:
                head[one(LINES[2] if says == "endless" else ","), newline] = 3.0
        for token, then in pairwise((*begins, MARKS[1]) if begins else ()):
            head[one(then), one(token)] = 3.0
        for first, then in zip(LINES, (LINES[2], *LINES[2:], MARKS[1]), strict=True):
            head[one(then), one(first)] = 3.0
        if says == "endless":
            head[one(MARKS[1]), one(LINES[3])] = 0.0
            head[one(LINES[2]), one(LINES[3])] = 3.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
