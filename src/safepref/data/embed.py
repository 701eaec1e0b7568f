"""Sentence embeddings by all-MiniLM-L6-v2 (Apache-2.0, arXiv 1908.10084 for the method), a pinned asset.

22.7 million parameters, so a CPU embeds hundreds of short texts a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast

MAX_TOKENS = 256
DIMENSIONS = 384


def embed(
    texts: Sequence[str], batch_size: int = 64, progress: Callable[[int], None] | None = None
) -> npt.NDArray[np.float32]:
    """Unit vectors `(N, 384)` of texts: mean over token states, then L2 normalisation; 256 tokens are read.

    The dot product of two rows is their cosine.

    Raises:
        InputError: the asset cannot be fetched.
    """
    import torch

    model, tokenizer = _load()
    out = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    # Texts of like length share a batch, so little is spent on padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        out[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        if progress is not None:
            progress(len(rows))
    return out


@cache
def _load() -> tuple[BertModel, PreTrainedTokenizerFast]:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from safepref.assets import fetch

    config: dict[str, Any] = json.loads(fetch("minilm/config.json").read_text(encoding="utf-8"))
    model = BertModel(BertConfig(**config))
    # Early checkpoints carry the position ids as a buffer, which the class now makes itself.
    weights = load_file(fetch("minilm/model.safetensors"))
    weights.pop("embeddings.position_ids", None)
    model.load_state_dict(weights)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(fetch("minilm/tokenizer.json")), pad_token="[PAD]", model_max_length=MAX_TOKENS
    )
    return model.eval(), tokenizer
