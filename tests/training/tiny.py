"""A two-layer model, a handful of rows and settings that train in a second; also a program for torchrun.

tiny.py OUT METHOD trains METHOD as one of several processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from safepref.logprobs import TokenRow
from safepref.logprobs.store import ReferenceStore
from safepref.methods import METHODS
from safepref.models import LoadedModel
from safepref.training import TrainingExample, TrainingPair, TrainingSettings, TrainResult, train_method

VOCABULARY = 64


def tiny_model(dtype: torch.dtype = torch.float32, **config: Any) -> LoadedModel:
    """A random two-layer Llama whose logits differ enough from uniform to have something to unlearn."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            **{
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 128,
                "initializer_range": 0.2,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                **config,
            }
        )
    )
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), pad_token="w0", eos_token="w2"
    )
    return LoadedModel(
        model.to(dtype).eval(), tokenizer, "tiny/llama", "tiny/llama", dtype, torch.device("cpu")
    )


def tiny_pairs(count: int = 12, **changes: Any) -> list[TrainingPair]:
    """Ragged pairs, two thirds harmful, the others harmless."""
    generator = torch.Generator().manual_seed(1)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())

    return [
        TrainingPair(
            TokenRow(ids(3, 9), ((*ids(2, 6), 2), (*ids(3, 9), 2))),
            **{"kind": "harmless" if number % 3 == 2 else "harmful", **changes},
        )
        for number in range(count)
    ]


def tiny_examples(count: int = 6) -> list[TrainingExample]:
    return [
        TrainingExample(TokenRow(pair.row.prompt_ids, pair.row.completions[1:]))
        for pair in reversed(tiny_pairs(20)[-count:])
    ]


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(
        **{
            "batch_size": 4,
            "epochs": 2,
            "learning_rate": 5e-3,
            "lora_rank": 4,
            "lora_alpha": 8,
            "save_steps": 1000,
            "seed": 3,
            **changes,
        }
    )


def train(out: Path, name: str = "dpo", loaded: LoadedModel | None = None, **options: Any) -> TrainResult:
    """Train one method on the tiny model with the tiny rows."""
    options = {"pairs": tiny_pairs(), "examples": [], "settings": settings(), **options}
    return train_method(
        loaded or tiny_model(),
        options.pop("pairs"),
        options.pop("examples"),
        METHODS[name],
        options.pop("settings"),
        out,
        ReferenceStore(out / "reference"),
        **options,
    )


SPLIT = {"batch_size": 2, "anchor": 0.5, "chosen_nll": {"harmful": 0.3}, "warmup": 0.4}
"""What is trained by several processes under torchrun."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), sys.argv[2], settings=settings(**SPLIT), examples=tiny_examples())
