"""CHES, the centered hidden embedding similarity of a pair's answers: which pairs cause displacement.

With h+ and h- the sums, over the tokens of the chosen and the rejected answer, of the last layer's hidden
embeddings from which each token is predicted (the first one from the prompt's last token, none from the
answer's own last token),

    CHES = <h+, h-> - |h+|^2            (arXiv 2410.08847, definition 2)

and its length-normalised form has means for the sums. The higher it is, the more the chosen answer's
likelihood falls in training; section 6 there filters by the normalised form, and so does this room.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from safepref.data.records import Pair
from safepref.logprobs.packing import Piece, pad, shape_of
from safepref.logprobs.route import Limits, evaluating, unwrap
from safepref.logprobs.rows import TokenRow
from safepref.store import sha256_json, whole_rows

BLOCK = 32
"""Pairs scored before the file is added to, which is what a kill can lose."""
TOKENS = 2048
"""Tokens of one forward pass, padding included."""


class Ches(NamedTuple):
    """A pair's score, and its length-normalised form."""

    score: float
    normalised: float


def ches(model: nn.Module, rows: Sequence[TokenRow]) -> list[Ches]:
    """The scores of `(R,)` rows of a chosen and a rejected completion, under the model as it is.

    Args:
        model: any causal LM of transformers.
        rows: two completions each.

    Raises:
        InputError: no rows, or a row that the model cannot take.
    """
    base = unwrap(model)
    limits = Limits(base)
    limits.check(rows)
    shape = shape_of(rows)
    counts = shape.counts.flatten()
    owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums: Tensor | None = None
    with evaluating(model):
        for piece in pad(rows, range(len(rows)), shape, TOKENS):
            states = _states(base, limits, piece)
            if sums is None:
                sums = torch.zeros(len(counts), states.shape[-1], dtype=torch.float64)
            sums.index_add_(0, owners[piece.slots], states)
    assert sums is not None  # there is a row
    means = sums / counts[:, None]
    return [
        Ches(*values)
        for values in zip(
            *(_similarity(h.view(len(rows), 2, -1)).tolist() for h in (sums, means)), strict=True
        )
    ]


def _similarity(h: Tensor) -> Tensor:
    """(R,) of (R, 2, H); the difference is taken first, since the two terms of the definition are near."""
    chosen, rejected = h.unbind(1)
    return (chosen * (rejected - chosen)).sum(-1)


def _states(base: Any, limits: Limits, piece: Piece) -> Tensor:
    """The last layer's states at the piece's predicting positions, (N, H) fp64 on the CPU."""
    device = next(base.parameters()).device
    inputs: dict[str, Any] = {"input_ids": piece.input_ids.to(device), "output_hidden_states": True}
    if piece.attention_mask is not None:
        inputs["attention_mask"] = piece.attention_mask.to(device)
    if "use_cache" in limits.accepts:
        inputs["use_cache"] = False
    if "logits_to_keep" in limits.accepts:
        inputs["logits_to_keep"] = 1
    states: Tensor = base(**inputs).hidden_states[-1].flatten(0, 1)
    return states[piece.predictors.to(states.device)].cpu().double()


def ches_scores(
    model: nn.Module,
    rows: Sequence[TokenRow],
    path: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Ches]:
    """The scores of `(R,)` rows, kept in `path` (JSON lines) block by block; a second call goes on.

    The blocks follow from the rows alone, so a continued call ends with the same scores.
    """
    keys = [sha256_json([row.prompt_ids, row.completions])[:16] for row in rows]
    known = _read(path)
    order = sorted(range(len(rows)), key=lambda at: (-rows[at].span, keys[at]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            if any(keys[at] not in known for at in block):
                found = ches(model, [rows[at] for at in block])
                fresh = {keys[at]: score for at, score in zip(block, found, strict=True)}
                for key, score in fresh.items():
                    stream.write(json.dumps({"key": key, **score._asdict()}) + "\n")
                stream.flush()
                known |= fresh
            progress(len(block))
    return [known[key] for key in keys]


def _read(path: Path) -> dict[str, Ches]:
    """The scores in `path`; a last line torn by a kill is cut off."""
    return {row["key"]: Ches(row["score"], row["normalised"]) for row in whole_rows(path)}


def leave_out(
    pairs: Sequence[Pair], scores: Mapping[int, Ches], share: float
) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and those left out: of each kind the `share` (rounded) with the highest score.

    Args:
        pairs: `(N,)`.
        scores: by the pair's place; pairs without one stay, and do not count.
        share: 0..1.
    """
    kinds: dict[str, list[int]] = defaultdict(list)
    for at in sorted(scores):
        kinds[pairs[at].kind].append(at)
    out: set[int] = set()
    for members in kinds.values():
        ranked = sorted(members, key=lambda at: (-scores[at].normalised, at))
        out.update(ranked[: round(share * len(members))])
    kept = [pair for at, pair in enumerate(pairs) if at not in out]
    return kept, [pair for at, pair in enumerate(pairs) if at in out]
