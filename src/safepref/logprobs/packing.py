"""How the rows of one micro-batch are laid out for the model.

`pack` puts whole rows end to end in sequences of shape (1, T): first what all prompts begin with (a system
prompt, mostly), then for each row the rest of its prompt and its completions, all with the position ids they
would have alone. `pad` lays every (prompt, completion) out on its own in batches
(B, S). A plan covers one given micro-batch and never changes which rows share an optimizer step. Prefix
sharing is exact: under a causal mask the prompt's states do not depend on what follows (arXiv 2410.20305,
2506.05433).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safepref.logprobs.rows import TokenRow

LAYOUT_VERSION = 2
"""Raised when rows come to be run in other shapes: stored log-probs of another version differ in rounding."""

FEWEST_SHARED = 8
"""Tokens of a common beginning below which sharing it does not pay."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of one forward pass, and where its completion tokens are predicted.

    A piece's N scored tokens are numbered by `slots` in the plan's order: rows, their completions, their
    tokens.
    """

    input_ids: Tensor
    """(B, S) int64."""
    position_ids: Tensor | None
    """(1, T) int64 for a packed piece, None where the model's own count is right."""
    attention_mask: Tensor | None
    """(B, S) int64, 1 for tokens and 0 for padding; None for a packed piece."""
    trunk: int
    """Tokens at the start of the sequence that the prompts of all packed rows begin with; 0 if not shared."""
    blocks: tuple[Tensor, ...]
    """One (S_r,) segment vector for each row behind the trunk: 0 in the prompt, k + 1 in completion k."""
    predictors: Tensor
    """(N,) int64, index into the B * S positions whose output predicts the scored token."""
    targets: Tensor
    """(N,) int64, the scored tokens."""
    slots: Tensor
    """(N,) int64, the scored tokens' numbers in the plan."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The plan's order of scored tokens, and how to fold them back to (R, K)."""

    counts: Tensor
    """(R, K) int64, tokens of each completion, 0 where a row has fewer than K."""
    offsets: tuple[tuple[int, ...], ...]
    """Number of each completion's first token."""
    total: int
    """Scored tokens in all."""


def shape_of(rows: Sequence[TokenRow]) -> Shape:
    """Number the scored tokens of `rows`: row by row, completion by completion, token by token."""
    counts = torch.zeros(len(rows), max(len(row.completions) for row in rows), dtype=torch.int64)
    offsets: list[tuple[int, ...]] = []
    total = 0
    for r, row in enumerate(rows):
        starts = []
        for k, completion in enumerate(row.completions):
            starts.append(total)
            counts[r, k] = len(completion)
            total += len(completion)
        offsets.append(tuple(starts))
    return Shape(counts=counts, offsets=tuple(offsets), total=total)


def fill(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices so that each group's sizes add up to at most `budget`: first fit, largest first.

    Something larger than the budget gets a group of its own. Deterministic.
    """
    groups: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = next((g for g, room in enumerate(free) if sizes[index] <= room), None)
        if place is None:
            groups.append([index])
            free.append(budget - sizes[index])
        else:
            groups[place].append(index)
            free[place] -= sizes[index]
    return [sorted(group) for group in groups]


def shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, each keeping one of its own; 0 where sharing does not pay."""
    if len(prompts) < 2:
        return 0
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    most = min(map(len, prompts)) - 1
    shared = next((at for at in range(most) if low[at] != high[at]), most)
    return shared if shared >= FEWEST_SHARED else 0


def pack(
    rows: Sequence[TokenRow], members: Sequence[int], shape: Shape, budget: int, *, share: bool = True
) -> list[Piece]:
    """Packed pieces that hold the rows numbered `members`, at most `budget` tokens each if the rows allow.

    Args:
        share: run what the prompts of a piece begin with once; not where a model's window counts places in
            the pack, as the trunk would fall out of it.
    """
    groups = fill([rows[r].span for r in members], budget)
    return [_packed_piece(rows, [members[i] for i in group], shape, share) for group in groups]


def _packed_piece(rows: Sequence[TokenRow], members: Sequence[int], shape: Shape, share: bool) -> Piece:
    trunk = shared_beginning([rows[r].prompt_ids for r in members]) if share else 0
    ids: list[int] = list(rows[members[0]].prompt_ids[:trunk])
    positions: list[int] = list(range(trunk))
    predictors: list[int] = []
    targets: list[int] = []
    slots: list[int] = []
    blocks: list[Tensor] = []
    for r in members:
        row, prompt = rows[r], len(rows[r].prompt_ids)
        prompt_end = len(ids) + prompt - trunk - 1
        ids.extend(row.prompt_ids[trunk:])
        positions.extend(range(trunk, prompt))
        segments = [0] * (prompt - trunk)
        for k, completion in enumerate(row.completions):
            first = len(ids)
            # The prompt's last position predicts every completion's first token.
            predictors.append(prompt_end)
            predictors.extend(range(first, first + len(completion) - 1))
            targets.extend(completion)
            slots.extend(range(shape.offsets[r][k], shape.offsets[r][k] + len(completion)))
            # The last token is only predicted: nothing reads its own state.
            ids.extend(completion[:-1])
            positions.extend(range(prompt, prompt + len(completion) - 1))
            segments.extend([k + 1] * (len(completion) - 1))
        blocks.append(torch.tensor(segments))
    return Piece(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=None,
        trunk=trunk,
        blocks=tuple(blocks),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        slots=torch.tensor(slots),
    )


def pad(rows: Sequence[TokenRow], members: Sequence[int], shape: Shape, budget: int) -> list[Piece]:
    """Padded pieces: one sequence for each completion of the rows `members`, of like length together.

    Padding stands on the right, where a causal model's tokens cannot see it. `budget` bounds B * S; 1 gives
    every sequence a piece of its own, without a mask.
    """
    sequences = [
        (len(rows[r].prompt_ids) + len(completion) - 1, r, k)
        for r in members
        for k, completion in enumerate(rows[r].completions)
    ]
    sequences.sort(key=lambda s: (-s[0], s[1], s[2]))
    pieces: list[Piece] = []
    while sequences:
        width = sequences[0][0]
        take = max(1, budget // width)
        pieces.append(_padded_piece(rows, [(r, k) for _, r, k in sequences[:take]], width, shape))
        sequences = sequences[take:]
    return pieces


def _padded_piece(
    rows: Sequence[TokenRow], members: Sequence[tuple[int, int]], width: int, shape: Shape
) -> Piece:
    ids = torch.zeros(len(members), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    predictors: list[int] = []
    targets: list[int] = []
    slots: list[int] = []
    for b, (r, k) in enumerate(members):
        prompt, completion = rows[r].prompt_ids, rows[r].completions[k]
        length = len(prompt) + len(completion) - 1
        ids[b, :length] = torch.tensor(prompt + completion[:-1])
        mask[b, :length] = 1
        first = b * width + len(prompt) - 1
        predictors.extend(range(first, first + len(completion)))
        targets.extend(completion)
        slots.extend(range(shape.offsets[r][k], shape.offsets[r][k] + len(completion)))
    return Piece(
        input_ids=ids,
        position_ids=None,
        attention_mask=None if bool(mask.all()) else mask,
        trunk=0,
        blocks=(),
        predictors=torch.tensor(predictors),
        targets=torch.tensor(targets),
        slots=torch.tensor(slots),
    )


def visible(segments: Tensor, trunk: int = 0) -> Tensor:
    """Which keys a query of one packed row sees: the trunk, its prompt, and its own completion up to itself.

    Args:
        segments: (S,) 0 in the prompt, k + 1 in completion k.
        trunk: tokens before the row that it sees all of.

    Returns:
        (S, trunk + S) bool, queries by keys.
    """
    same = (segments[None, :] == 0) | (segments[None, :] == segments[:, None])
    return torch.cat([same.new_ones(len(segments), trunk), same.tril()], dim=1)


def dense_mask(piece: Piece) -> Tensor:
    """The (1, 1, T, T) bool mask of a packed piece: the trunk, and each row as `visible` has it."""
    start = piece.trunk
    total = start + sum(map(len, piece.blocks))
    mask = torch.zeros(total, total, dtype=torch.bool)
    mask[:start, :start] = visible(torch.zeros(start))
    for block in piece.blocks:
        stop = start + len(block)
        seen = visible(block, piece.trunk)
        mask[start:stop, : piece.trunk] = seen[:, : piece.trunk]
        mask[start:stop, start:stop] = seen[:, piece.trunk :]
        start = stop
    return mask[None, None]
