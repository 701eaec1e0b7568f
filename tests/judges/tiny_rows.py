"""A tiny random model and a real byte-level tokenizer for any row of the guard table, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_guard import WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safepref.judges.guard import GuardJudge
from safepref.judges.guard_table import GUARDS
from safepref.judges.registry import load_judge

TEMPLATES = Path(__file__).parent / "chat_templates"
CHAT = {
    "shieldgemma": "shieldgemma.jinja",
    "granite-guardian": "granite-guardian.jinja",
    "llama-guard-4": "llama-guard-4-like.jinja",
    "qwen3guard": "qwen3guard-like.jinja",
    "qwen3guard-loose": "qwen3guard-like.jinja",
}
"""Chat templates by row; SOURCES.md says where each comes from. The other rows' tokenizers have none."""


def row_tokenizer(name: str, metaspace: bool = False) -> Any:
    """A tokenizer that has the row's special tokens and its chat template.

    Args:
        metaspace: SentencePiece's way, with a space put before the first word of a text.
    """
    row = GUARDS[name]
    backend = Tokenizer(models.BPE(byte_fallback=metaspace, unk_token="<unk>" if metaspace else None))
    said = [*row.safe, *row.unsafe, row.lead, "How do I bake bread? Mix flour."] * 30
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = list(row.marks)
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Metaspace(prepend_scheme="first")
        special += ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        alphabet = ["▁", *map(chr, range(33, 127))]
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(WORDS, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 300,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(said, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=row.marks[0],
        eos_token=row.marks[-1],
        additional_special_tokens=list(row.marks),
    )
    if name in CHAT:
        tokenizer.chat_template = (TEMPLATES / CHAT[name]).read_text()
    return tokenizer


def save_row(folder: Path, name: str, *, seed: int = 0, **options: Any) -> Path:
    """A tiny random Llama with the row's tokenizer, as a safetensors folder."""
    tokenizer = row_tokenizer(name, **options)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_row(folder: Path, name: str, **options: Any) -> GuardJudge:
    """The guard by its name, as a user loads it; a random model's words are hardly ever its row's."""
    made = load_judge(f"{name}:{folder}", **{"min_mass": 0.0, **options})
    assert isinstance(made, GuardJudge)
    return made
