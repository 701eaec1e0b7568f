"""Mean hidden states of all-MiniLM-L6-v2's lower layers (Apache-2.0), read from its pinned wheel.

They tell better what a sentence does (refuse, warn, instruct) than the model's own sentence vectors
(data/embed.py), which tell topics apart, and cost half as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safepref import assets
from safepref.data.records import without_surrogates

WIDTH = 384
LAYERS = (1, 3)
"""The layers that are read."""
LONGEST = 96
_FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


class Embedder:
    """MiniLM's first layers, as many as `states` needs: token windows to vectors."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModel

        folder = {assets.fetch(f"minilm/{name}").parent for name in _FILES}.pop()
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        with _silenced():
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, add_pooling_layer=False, num_hidden_layers=max(LAYERS)
            )
        self._model: Any = model.eval().float()
        self._start = self._tokenizer.token_to_id("[CLS]")
        self._end = self._tokenizer.token_to_id("[SEP]")

    def tokens(self, text: str) -> list[int]:
        """Word-piece ids without the two special tokens; special-token text is read as plain text."""
        return list(self._tokenizer.encode(without_surrogates(text), add_special_tokens=False).ids)

    def states(self, windows: Sequence[Sequence[int]], batch_size: int = 64) -> NDArray[np.float32]:
        """Mean hidden states of LAYERS, each of unit length, of token windows (at most LONGEST ids are read).

        Equal windows are computed once and windows of like length together, so that padding costs little.

        Returns:
            Shape (N, len(LAYERS) * 384), rows in the order given.
        """
        import torch
        from torch.nn.functional import normalize

        distinct = sorted({tuple(w[:LONGEST]) for w in windows}, key=lambda w: (len(w), w))
        place = {window: i for i, window in enumerate(distinct)}
        vectors = np.zeros((len(distinct), WIDTH * len(LAYERS)), np.float32)
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
                layers = [normalize(_mean(found.hidden_states[at], mask), dim=-1) for at in LAYERS]
                vectors[start : start + len(batch)] = torch.cat(layers, -1).numpy()
        return vectors[[place[tuple(w[:LONGEST])] for w in windows]]


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
def sentence_encoder() -> Embedder:
    """The one encoder of this process."""
    return Embedder()
