"""Attention over packed rows through transformers' attention interface: each row attends within itself only.

A dense mask over a packed sequence of T tokens costs O(T^2) in time and memory although almost all of it is
masked. The function registered here visits the rows one by one, S x S each, with one mask for all layers.
Scores are explicit matrix products, because the backward pass of PyTorch's fused CPU kernel is several
times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from safepref.logprobs.packing import Piece, visible

NAME = "safepref_rows"
"""The registered implementation, active only inside `row_attention`."""


class RowBlocks:
    """The rows of one packed piece, for every layer's attention; masks are built once and shared."""

    def __init__(self, piece: Piece, device: torch.device) -> None:
        self.trunk = piece.trunk
        blocks = [visible(block, self.trunk) for block in piece.blocks]
        if self.trunk:
            blocks.insert(0, visible(torch.zeros(self.trunk)))
        self.lengths = [len(block) for block in blocks]
        self._hidden = [~block.to(device) for block in blocks]
        self._masks: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    def masks(self, repeats: int, dtype: torch.dtype) -> list[Tensor]:
        """Additive masks (1, repeats * S, trunk + S) for the `repeats` query heads that share a key head."""
        key = (repeats, dtype)
        if key not in self._masks:
            self._masks[key] = [
                torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
                .masked_fill_(hidden, float("-inf"))
                .repeat(repeats, 1)[None]
                for hidden in self._hidden
            ]
        return self._masks[key]


def rows_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    row_blocks: RowBlocks | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of packed rows, in the form that transformers' attention interface asks for.

    Args:
        module: the attention layer.
        query: (1, H, T, d).
        key: (1, G, T, d), H a multiple of G (grouped-query attention).
        value: (1, G, T, e).
        attention_mask: None; the rows say what is visible.
        scaling: of the scores, 1 / sqrt(d) if None.
        dropout: probability on the attention weights.
        row_blocks: the rows, handed through the model's keyword arguments.
        options: other things a model asks of its attention.

    Returns:
        (1, T, H, e) and no weights.

    Raises:
        NotImplementedError: the model did not hand the rows through, or asks for something that is not
            computed here (softcap, sinks, a position bias); the caller then takes the dense mask.
    """
    wanted = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if row_blocks is None or attention_mask is not None or wanted:
        raise NotImplementedError(
            f"row attention does not cover {type(module).__name__} ({wanted or 'rows not handed through'})"
        )
    groups, width = key.shape[1], value.shape[-1]
    repeats = query.shape[1] // groups
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = []
    # split, not slices: its backward is one concatenation instead of a full-length zero tensor for each row.
    queries, keys, values = (torch.split(x[0], row_blocks.lengths, dim=1) for x in (query, key, value))
    if row_blocks.trunk:
        keys = (keys[0], *(torch.cat([keys[0], own], dim=1) for own in keys[1:]))
        values = (values[0], *(torch.cat([values[0], own], dim=1) for own in values[1:]))
    masks = row_blocks.masks(repeats, query.dtype)
    for length, mask, q, k, v in zip(row_blocks.lengths, masks, queries, keys, values, strict=True):
        # Query heads that share a key head stand together, so they fold into its rows without copying keys.
        folded = q.reshape(groups, repeats * length, -1)
        scores = torch.baddbmm(mask.expand(groups, -1, -1), folded, k.transpose(1, 2), alpha=scale)
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
        if dropout:
            weights = nn.functional.dropout(weights, dropout)
        outputs.append(torch.bmm(weights, v).reshape(groups * repeats, length, width))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


AttentionInterface.register(NAME, rows_attention_forward)


def can_switch(base: nn.Module) -> bool:
    """Whether the row attention may stand in: a text model on CPU with an attention interface, now on SDPA.

    Elsewhere the dense mask is kept: on a GPU one masked kernel beats a loop over rows, and a model that is
    on eager or flash attention was put there for a reason.
    """
    config = getattr(base, "config", None)
    return (
        bool(getattr(base, "_supports_attention_backend", False))
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and not getattr(config, "sub_configs", None)
        and next(base.parameters()).device.type == "cpu"
    )


def recomputes(base: nn.Module) -> bool:
    """Whether layers are run again in the backward pass (gradient checkpointing is on).

    The switch below is over by then, so the recomputation would meet another attention; the dense mask, an
    ordinary argument, is safe.
    """
    return any(getattr(module, "gradient_checkpointing", False) for module in base.modules())


@contextmanager
def row_attention(base: Any) -> Iterator[None]:
    """Run the model on the row attention while the block runs, then give it back its own."""
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before)
