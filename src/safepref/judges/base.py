"""Verdicts and the interface of every judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Verdict(StrEnum):
    """What a judge says of an answer. Unscored never counts as safe."""

    HARMFUL = "harmful"
    HARMLESS = "harmless"
    UNSCORED = "unscored"


class Exchange(NamedTuple):
    """What is judged: a request and the answer to it, both plain text."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class Judgment:
    """One verdict. `score` is P(harmful) in 0..1, or None when unscored.

    `prompt_sha256` is the hash of the exact prompt that a model was given; embedded judges have no prompt
    beside the exchange itself. `in_words`: a server that gave no token probabilities wrote the verdict, so
    that the score is 0 or 1 for want of a better one.
    """

    verdict: Verdict
    score: float | None
    judge: str
    categories: tuple[str, ...] = ()
    reason: str = ""
    prompt_sha256: str = ""
    in_words: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for one JSON line."""
        row = {**asdict(self), "verdict": self.verdict.value, "categories": list(self.categories)}
        for field in ("prompt_sha256", "in_words"):
            if not row[field]:
                del row[field]
        return row


class Judge(Protocol):
    """Anything that can say whether answers are harmful."""

    name: str

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order."""
        ...

    def card(self) -> dict[str, Any]:
        """What the judge is: training sources, measured figures, known failures."""
        ...
