"""Length limits on token ids: prompts keep their end or are refused, completions are cut; all is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safepref.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Most tokens of a prompt and of a completion.

    `overflow`: a longer prompt keeps its first token (BOS, or what opens the first turn) and its end
    ("keep_end"), or its row is left out ("refuse").
    """

    max_prompt: int = 512
    max_completion: int = 512
    overflow: Literal["keep_end", "refuse"] = "keep_end"

    def __post_init__(self) -> None:
        for name, least in (("max_prompt", 2), ("max_completion", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} {value}: must be at least {least} tokens")


@dataclass(slots=True)
class Truncation:
    """What the limits did: rows seen, prompts cut, rows refused, completions cut (two a pair)."""

    rows: int = 0
    prompts_cut: int = 0
    refused: int = 0
    completions_cut: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rows} rows: {self.prompts_cut} prompts cut, {self.refused} refused as too long, "
            f"{self.completions_cut} completions cut"
        )


def fit_prompt(
    prompt_ids: Sequence[int], limits: Limits, count: Truncation | None = None
) -> list[int] | None:
    """A prompt within the limit, or None where it is refused."""
    ids = list(prompt_ids)
    if len(ids) <= limits.max_prompt:
        return ids
    if limits.overflow == "refuse":
        if count is not None:
            count.refused += 1
        return None
    if count is not None:
        count.prompts_cut += 1
    return [ids[0], *ids[len(ids) - limits.max_prompt + 1 :]]


def fit_completion(ids: Sequence[int], limits: Limits, count: Truncation | None = None) -> list[int]:
    """A completion within the limit. A cut one has no end of turn: the model was not done there."""
    if len(ids) > limits.max_completion and count is not None:
        count.completions_cut += 1
    return list(ids[: limits.max_completion])
