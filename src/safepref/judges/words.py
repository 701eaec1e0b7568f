"""The words of a verdict, in what a model writes and among what it could have written.

A token that only begins a word says nothing yet: "N" may go on to "No" or to "N/A", "s" to "safe" or to
"sorry". What is read as a word is one that was written to its end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Kinds = Sequence[Sequence[str]]
"""The words for safe (or no), then those for unsafe (or yes)."""


class Masses(NamedTuple):
    """Probabilities of the words for safe (or no) and for unsafe (or yes) at the verdict's place.

    `begun`: of tokens that begin words for unsafe and were not written, so that nobody knows how they would
    have gone on. They count for unsafe, never for safe, and never as words that were said.
    """

    safe: float
    unsafe: float
    begun: float = 0.0

    @property
    def mass(self) -> float:
        """What the model says in words of the verdict, 0..1."""
        return self.safe + self.unsafe

    @property
    def share(self) -> float:
        """P(unsafe) / (P(safe) + P(unsafe)), 0..1."""
        harm = self.unsafe + self.begun
        return harm / max(self.safe + harm, 1e-12)


def word_written(text: str, kinds: Kinds) -> int | None:
    """Which kind's word a text begins with, written to its end; None where it is none."""
    text = text.lstrip()
    for at, words in enumerate(kinds):
        if any(re.match(re.escape(word.strip()) + r"(?!\w|/\w)", text) for word in words):
            return at
    return None


def masses_of(likely: Mapping[str, float], token: str, kind: int, kinds: Kinds) -> Masses:
    """The probabilities of the words among the likeliest tokens.

    Args:
        likely: log-probabilities of the likeliest tokens, the written one among them.
        token: the one that was written.
        kind: which kind's word it went on to.
        kinds: the words.
    """
    words = [[word.strip() for word in some] for some in kinds]
    found, begun = [0.0, 0.0], 0.0
    for other, logprob in likely.items():
        said = other.strip()
        whole = next((at for at, some in enumerate(words) if said in some), None)
        if other == token:
            found[kind] += math.exp(logprob)
        elif whole is not None:
            found[whole] += math.exp(logprob)
        elif said and any(word.startswith(said) for word in words[1]):
            # Of a token that begins words of both kinds nothing is known at all.
            begun += 0.0 if any(word.startswith(said) for word in words[0]) else math.exp(logprob)
    return Masses(found[0], found[1], begun)
