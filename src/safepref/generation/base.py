"""The one interface of all generation engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from safepref.data.records import Message

PROMPT_LIMIT = 2048
"""Longest prompt in tokens; a longer one loses its start."""
Progress = Callable[[int], None]
"""Called with the number of newly finished items."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. `temperature` 0 is greedy, and then `seed` and `top_p` have no effect."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer. `truncated`: the token cap cut it before the model ended its turn."""

    text: str
    tokens: int
    truncated: bool


class Engine(Protocol):
    """Answers conversations, in order; equal inputs at temperature 0 give equal answers."""

    name: str

    @property
    def block(self) -> int:
        """Conversations that are worth handing over at once, which is also what a kill can lose."""
        ...

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One completion for each conversation, in the order given."""
        ...


def evenly(count: int, most: int) -> int:
    """The size of the next of as few like parts as can be that hold `count` items, at most `most` each.

    A small last batch would cost nearly as much time as a full one.
    """
    return math.ceil(count / math.ceil(count / most))
