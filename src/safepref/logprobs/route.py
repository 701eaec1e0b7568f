"""One way to run rows through a model: a layout and a head; and the bookkeeping round a forward pass."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from safepref.errors import InputError
from safepref.logprobs.attention import RowBlocks, recomputes, row_attention
from safepref.logprobs.heads import Head
from safepref.logprobs.packing import Piece, Shape, dense_mask, pack, pad
from safepref.logprobs.rows import TokenRow

Layout = Literal["rows", "dense", "padded", "separate"]
"""rows: packed, prefix-shared, row by row in attention. dense: packed, prefix-shared, one T x T mask.
padded: each completion with its prompt, padded. separate: one sequence a forward pass."""

PACKED: tuple[Layout, ...] = ("rows", "dense")

BUDGETS: dict[Layout, dict[str, int]] = {
    # Row attention costs the same in any pack; a dense mask's cost grows with the square of its length.
    "rows": {"cpu": 4096, "other": 8192},
    "dense": {"cpu": 768, "other": 4096},
    "padded": {"cpu": 2048, "other": 8192},
    "separate": {"cpu": 1, "other": 1},
}

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")
"""Config keys by which a model limits how far back a token sees."""


def unwrap(model: Any) -> Any:
    """The causal LM inside DDP, compiled and PEFT wrappers; injected adapters stay in it."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ in (
            "DistributedDataParallel",
            "FullyShardedDataParallel",
            "DeepSpeedEngine",
        ):
            model = model.module
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """The model without its PEFT adapters while the block runs; a model without adapters is left alone."""
    while hasattr(model, "module") and not hasattr(model, "disable_adapter"):
        model = model.module
    with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients while the block runs; every module's mode is restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Limits:
    """What a model takes and how far its tokens see."""

    base: Any

    @cached_property
    def config(self) -> Any:
        """The text part of the model's config, or None."""
        config: Any = getattr(self.base, "config", None)
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @cached_property
    def horizon(self) -> int | None:
        """Tokens a row may span before a window of the model's attention could tell packing from its absence.

        A window counts positions in the pack in some models and is dropped for a given 4-D mask in others;
        rows within it are safe in both, longer ones take the padded layout.
        """
        sizes = [getattr(self.config, name, None) for name in WINDOWS]
        return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)

    @cached_property
    def positions(self) -> int | None:
        """The longest sequence that the model's config allows."""
        count = getattr(self.config, "max_position_embeddings", None)
        return count if isinstance(count, int) else None

    def longest_pack(self, layout: Layout) -> int | None:
        """Tokens that a packed sequence may have.

        Models without an attention interface may index a causal buffer of `max_position_embeddings` by the
        place in the sequence, whatever the position ids say.
        """
        return self.positions if layout == "dense" else None

    @cached_property
    def accepts(self) -> frozenset[str]:
        """Argument names of the model's forward pass, named ones only."""
        return frozenset(inspect.signature(self.base.forward).parameters)

    def check(self, rows: Sequence[TokenRow]) -> None:
        """Refuse rows that the model cannot take.

        Raises:
            InputError: no rows, a token outside the vocabulary, or a sequence longer than the model's
            positions.
        """
        if not rows:
            raise InputError("log-probs: no rows were given; give at least one TokenRow")
        vocabulary = getattr(self.config, "vocab_size", None)
        for index, row in enumerate(rows):
            highest = max(max(row.prompt_ids), *(max(completion) for completion in row.completions))
            if isinstance(vocabulary, int) and highest >= vocabulary:
                raise InputError(
                    f"log-probs: row {index} has token id {highest}, the model's vocabulary ends at "
                    f"{vocabulary - 1}; tokenize with the model's own tokenizer"
                )
            if self.positions is not None and row.longest > self.positions:
                raise InputError(
                    f"log-probs: row {index} has {row.longest} tokens, the model takes {self.positions}; "
                    "shorten the prompt or the completion"
                )


@dataclass(frozen=True, slots=True)
class Route:
    """A layout, a head, and the tokens that one forward pass may hold."""

    layout: Layout
    head: Head
    token_budget: int
    limits: Limits

    def pieces(self, rows: Sequence[TokenRow], shape: Shape) -> list[Piece]:
        """The forward passes that score `rows`; which way a row goes depends on the row alone."""
        everyone = range(len(rows))
        if self.layout not in PACKED:
            return pad(rows, everyone, shape, self.token_budget)
        longest = self.limits.longest_pack(self.layout) or sys.maxsize
        bound = min(longest, self.limits.horizon or sys.maxsize)
        packed = [r for r in everyone if rows[r].span <= bound]
        padded = [r for r in everyone if rows[r].span > bound]
        budget = min(self.token_budget, longest)
        share = self.limits.horizon is None
        return pack(rows, packed, shape, budget, share=share) + pad(rows, padded, shape, self.token_budget)

    def features(self, model: nn.Module, piece: Piece) -> Tensor:
        """States or logits (as the head has it) at the piece's predicting positions, (N, H) or (N, V)."""
        base = self.limits.base
        device = next(base.parameters()).device
        inputs: dict[str, Any] = {"input_ids": piece.input_ids.to(device)}
        if "use_cache" in self.limits.accepts:
            inputs["use_cache"] = False
        if piece.attention_mask is not None:
            inputs["attention_mask"] = piece.attention_mask.to(device)
        switch: AbstractContextManager[None] = nullcontext()
        if piece.position_ids is not None:
            inputs["position_ids"] = piece.position_ids.to(device)
            if self.layout == "rows" and not recomputes(base):
                inputs["row_blocks"] = RowBlocks(piece, device)
                switch = row_attention(base)
            else:
                inputs["attention_mask"] = self._mask(piece, device)
        with switch:
            return self.head.features(model, inputs, piece.predictors)

    def _mask(self, piece: Piece, device: torch.device) -> Tensor:
        """The packed mask in the form that the model's attention takes: bool for SDPA, additive elsewhere."""
        mask = dense_mask(piece).to(device)
        if getattr(self.limits.config, "_attn_implementation", None) == "sdpa":
            return mask
        dtype = next(self.limits.base.parameters()).dtype
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, torch.finfo(dtype).min)

    def token_logps(
        self, model: nn.Module, rows: Sequence[TokenRow], shape: Shape, chunk: int | None = None
    ) -> Tensor:
        """Log-prob of every scored token in the plan's order, (N,) fp32, differentiable."""
        values, slots = [], []
        for piece in self.pieces(rows, shape):
            features = self.features(model, piece)
            values.append(self.head.logps(features, piece.targets.to(features.device), chunk))
            slots.append(piece.slots)
        return reorder(values, slots)

    def ranked_logps(
        self, model: nn.Module, rows: Sequence[TokenRow], shape: Shape, chunk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `token_logps`, without a gradient, and whether each token is the likeliest, (N,) bool."""
        values, best, slots = [], [], []
        for piece in self.pieces(rows, shape):
            features = self.features(model, piece)
            logps, first = self.head.ranked(features, piece.targets.to(features.device), chunk)
            values.append(logps)
            best.append(first)
            slots.append(piece.slots)
        return reorder(values, slots), reorder(best, slots)


def reorder(values: list[Tensor], slots: list[Tensor]) -> Tensor:
    """Values of several pieces, put into the plan's order."""
    flat = torch.cat(values)
    return flat[torch.argsort(torch.cat(slots)).to(flat.device)]
