"""Sentence embeddings by all-MiniLM-L6-v2 (Apache-2.0), mean-pooled and normalised, read from its
pinned wheel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref import assets

WIDTH = 384
_FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


class Embedder:
    """MiniLM: texts or token windows to unit vectors."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModel

        folder = {assets.fetch(f"minilm/{name}").parent for name in _FILES}.pop()
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model: Any = AutoModel.from_pretrained(str(folder), local_files_only=True).eval().float()
        self._start = self._tokenizer.token_to_id("[CLS]")
        self._end = self._tokenizer.token_to_id("[SEP]")

    def tokens(self, text: str) -> list[int]:
        """Word-piece ids without the two special tokens; special-token text is read as plain text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def embed(self, windows: Sequence[Sequence[int]], batch_size: int = 32) -> NDArray[np.float32]:
        """Unit vectors of token windows (each at most 254 ids), shape (N, 384), rows in the order given.

        Equal windows are computed once and windows of like length together, so that padding costs little.
        """
        import torch

        distinct = sorted({tuple(w[:254]) for w in windows}, key=lambda w: (len(w), w))
        place = {window: i for i, window in enumerate(distinct)}
        vectors = np.zeros((len(distinct), WIDTH), np.float32)
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            length = max(len(w) for w in batch) + 2
            ids = torch.zeros(len(batch), length, dtype=torch.long)
            mask = torch.zeros(len(batch), length)
            for row, window in enumerate(batch):
                ids[row, : len(window) + 2] = torch.tensor([self._start, *window, self._end])
                mask[row, : len(window) + 2] = 1
            with torch.inference_mode():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vectors[start : start + len(batch)] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return vectors[[place[tuple(w[:254])] for w in windows]]


@lru_cache(maxsize=1)
def embedder() -> Embedder:
    """The one embedder of this process."""
    return Embedder()
