"""Keys and values of a batch that is decoded: room for all its tokens, what its prompts share read once.

transformers' dynamic cache copies all keys and values of all layers for every new token. Here each layer has
one block for the whole answer and hands out views of it, and what all prompts begin with (system prompt, an
attack's template) is run once and copied into every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from safepref.logprobs.route import unwrap


class RoomyLayer(DynamicLayer):
    """A layer's keys and values (B, G, S, d), the first S places of a block with room for `room` tokens."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self.filled = 0
        self._blocks: list[Tensor] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the block; called with the first states."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._blocks = [
            part.new_empty(*part.shape[:2], self.room, part.shape[-1]) for part in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the old ones; views of all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.filled = self.filled, self.filled + key_states.shape[-2]
        for block, part in zip(self._blocks, (key_states, value_states), strict=True):
            block[:, :, start : self.filled] = part
        keys, values = (block[:, :, : self.filled] for block in self._blocks)
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, or repeat them."""
        # Layers of one model may lie on several devices.
        at = indices.to(self.device)
        keys, values = (block[:, :, : self.filled][at] for block in self._blocks)
        self.filled = 0
        self.lazy_initialization(keys, values)
        self.update(keys, values)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """As `batch_select_indices`."""
        self.batch_select_indices(beam_idx)

    def get_seq_length(self) -> int:
        """Tokens written so far."""
        return self.filled

    def release(self) -> None:
        """Let go of all keys and values."""
        self.keys = self.values = None
        self._blocks = []


def has_plain_attention(model: Any) -> bool:
    """Whether every layer keeps the keys and values of all tokens, and takes a mask with holes in it."""
    config = model.config.get_text_config()
    layers = DynamicCache(config=model.config).layers
    return (
        len(layers) == getattr(config, "num_hidden_layers", None)
        and all(type(layer) is DynamicLayer for layer in layers)
        and bool(getattr(unwrap(model), "_supports_attention_backend", False))
    )


def roomy_cache(model: Any, room: int) -> Any:
    """An empty transformers `Cache` with room for `room` tokens in each row."""
    count = model.config.get_text_config().num_hidden_layers
    return Cache(layers=[RoomyLayer(room) for _ in range(count)])


@torch.inference_mode()
def read_once(model: Any, beginning: Sequence[int]) -> Any:
    """A cache of one row that has read `beginning`."""
    cache = roomy_cache(model, len(beginning))
    model(
        input_ids=torch.tensor([list(beginning)], device=next(model.parameters()).device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache


def repeated(model: Any, cache: Any, rows: int, room: int) -> Any:
    """A roomy cache of one row, as `rows` equal rows with room for `room` tokens."""
    whole = roomy_cache(model, room)
    for layer, one in zip(whole.layers, cache.layers, strict=True):
        layer.update(*(side.expand(rows, -1, -1, -1) for side in _states(one)))
    return whole


def stacked(model: Any, caches: Sequence[Any], room: int) -> Any:
    """The rows of several roomy caches in one, with room for `room` tokens: all end in the same column.

    Columns before a cache's first are zero, so that a mask is enough to hide them. The caches are used up,
    layer by layer, so that the states stand twice in one layer only.
    """
    whole = roomy_cache(model, room)
    for layer, *parts in zip(whole.layers, *(cache.layers for cache in caches), strict=True):
        filled = max(part.get_seq_length() for part in parts)
        keys, values = (
            torch.cat([F.pad(x, (0, 0, filled - x.shape[2], 0)) for x in side])
            for side in zip(*map(_states, parts), strict=True)
        )
        for part in parts:
            part.release()
        layer.update(keys, values)
    return whole


def _states(layer: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of all tokens written so far."""
    return layer.keys, layer.values


@torch.inference_mode()
def token_bytes(model: Any) -> int:
    """Bytes that one token's keys and values take in all layers; measured, as configs say it in many ways."""
    cache = DynamicCache(config=model.config)
    ids = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    states = (getattr(layer, side, None) for layer in cache.layers for side in ("keys", "values"))
    return max(1, sum(int(x.nbytes) for x in states if isinstance(x, Tensor)))
