"""Verdicts and the interface of every judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from safepref.data.records import Message, Prompt


class Verdict(StrEnum):
    """What a judge says of an answer: of its harm, or, in tasks other than safety, whether it is good.

    Unscored never counts as safe, nor as good.
    """

    HARMFUL = "harmful"
    HARMLESS = "harmless"
    UNSCORED = "unscored"
    GOOD = "good"
    BAD = "bad"

    @property
    def bad(self) -> bool:
        """What a judge is there to find."""
        return self in (Verdict.HARMFUL, Verdict.BAD)

    @property
    def good(self) -> bool:
        """What counts for the model."""
        return self in (Verdict.HARMLESS, Verdict.GOOD)


class Exchange(NamedTuple):
    """What is judged: a request and the answer to it, both plain text.

    `before` holds the turns before the request as text, and `target` what a right answer says. Judges of harm
    read neither.
    """

    prompt: str
    response: str
    before: str = ""
    target: str = ""


def turns_before(messages: Sequence[Message]) -> str:
    """The user's and the assistant's turns before the last user turn, as text."""
    last = max((at for at, turn in enumerate(messages) if turn["role"] == "user"), default=0)
    spoken = [turn for turn in messages[:last] if turn["role"] != "system"]
    # Not "User:", which is taken out of judged text as a forged turn would be.
    return "\n".join(f"[{turn['role']}] {turn['content']}" for turn in spoken)


def exchange_of(prompt: Prompt, response: str) -> Exchange:
    """An answer to a prompt as judges are shown it: to the bare request, without an attack's wrapping."""
    return Exchange(prompt.request, response, turns_before(prompt.messages), prompt.target)


@dataclass(frozen=True, slots=True)
class Judgment:
    """One verdict. `score` is P(harmful), or P(bad), in 0..1, or None when unscored.

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
    """Anything that can say whether answers are harmful, or bad in another way."""

    name: str

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order."""
        ...

    def card(self) -> dict[str, Any]:
        """What the judge is: training sources, measured figures, known failures."""
        ...
