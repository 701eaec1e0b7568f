"""Sentence embeddings by all-MiniLM-L6-v2 (Apache-2.0), mean-pooled, read from its pinned wheel.

`embed` gives the model's own sentence vectors, which tell topics apart. `states` gives the mean hidden
states of its lower layers, which tell better what a sentence does (refuse, warn, instruct) and cost half as
much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref import assets

WIDTH = 384
LAYERS = (1, 3)
"""The layers that `states` reads."""
_FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


class Embedder:
    """MiniLM: texts or token windows to vectors. `depth`: how many of its six layers are loaded."""

    def __init__(self, depth: int | None = None) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModel

        folder = {assets.fetch(f"minilm/{name}").parent for name in _FILES}.pop()
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        options = {} if depth is None else {"num_hidden_layers": depth}
        with _silenced():
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, add_pooling_layer=False, **options
            )
        self._model: Any = model.eval().float()
        self._start = self._tokenizer.token_to_id("[CLS]")
        self._end = self._tokenizer.token_to_id("[SEP]")

    def tokens(self, text: str) -> list[int]:
        """Word-piece ids without the two special tokens; special-token text is read as plain text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def embed(self, windows: Sequence[Sequence[int]], batch_size: int = 32) -> NDArray[np.float32]:
        """Unit vectors of token windows (each at most 254 ids), shape (N, 384), rows in the order given.

        Equal windows are computed once and windows of like length together, so that padding costs little.
        """
        from torch.nn.functional import normalize

        def pool(states: Sequence[Any], mask: Any) -> Any:
            return normalize(_mean(states[-1], mask), dim=-1)

        return self._run(windows, WIDTH, pool, 254, batch_size)

    def states(self, windows: Sequence[Sequence[int]], batch_size: int = 64) -> NDArray[np.float32]:
        """Mean hidden states of LAYERS, each of unit length, of token windows (at most 96 ids are read).

        Returns:
            Shape (N, len(LAYERS) * 384), rows in the order given.
        """
        import torch
        from torch.nn.functional import normalize

        def pool(states: Sequence[Any], mask: Any) -> Any:
            return torch.cat([normalize(_mean(states[layer], mask), dim=-1) for layer in LAYERS], -1)

        return self._run(windows, WIDTH * len(LAYERS), pool, 96, batch_size)

    def _run(
        self, windows: Sequence[Sequence[int]], width: int, pool: Any, longest: int, batch_size: int
    ) -> NDArray[np.float32]:
        import torch

        distinct = sorted({tuple(w[:longest]) for w in windows}, key=lambda w: (len(w), w))
        place = {window: i for i, window in enumerate(distinct)}
        vectors = np.zeros((len(distinct), width), np.float32)
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            length = max(len(w) for w in batch) + 2
            ids = torch.zeros(len(batch), length, dtype=torch.long)
            mask = torch.zeros(len(batch), length)
            for row, window in enumerate(batch):
                ids[row, : len(window) + 2] = torch.tensor([self._start, *window, self._end])
                mask[row, : len(window) + 2] = 1
            with torch.inference_mode():
                found = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
                vectors[start : start + len(batch)] = pool(found.hidden_states, mask).numpy()
        return vectors[[place[tuple(w[:longest])] for w in windows]]


def _mean(states: Any, mask: Any) -> Any:
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@contextmanager
def _silenced() -> Iterator[None]:
    """Loading part of the layers is meant, so transformers need not warn of the rest."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@lru_cache(maxsize=1)
def embedder() -> Embedder:
    """The one embedder of this process."""
    return Embedder()


@lru_cache(maxsize=1)
def sentence_encoder() -> Embedder:
    """The layers of the embedder that `states` needs, once for this process."""
    return Embedder(max(LAYERS))
