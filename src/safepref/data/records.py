"""The records that move between the rooms: prompts, preference pairs, general examples.

All are frozen and JSON-serialisable; `to_json` and `from_json` round-trip exactly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Message: TypeAlias = dict[str, str]
"""One chat turn: {"role": "system" | "user" | "assistant", "content": text}."""

Split: TypeAlias = Literal["train", "choose", "report"]
PromptKind: TypeAlias = Literal["harmful", "harmless", "general", "toxicity", "task"]
PairKind: TypeAlias = Literal["harmful", "harmless", "ordinary", "preference"]
"""What a pair teaches: to refuse, to answer what only looks harmful, to answer ordinary requests, or what it
prefers by itself: a ready pair, and those of other tasks than safety."""

SPLITS: tuple[Split, ...] = ("train", "choose", "report")


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for lone surrogates: JSON can spell them, UTF-8 and tokenizers hold none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def content_id(*parts: str) -> str:
    """A stable 16-digit id of texts, equal on every machine and run."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request to the policy, with what is needed to group, split and score its answer.

    `base_id` names the request before any attack was put round it, so that the variants of one request
    can be treated as one cluster; `template` is the key by which splits are kept disjoint.
    """

    id: str
    messages: tuple[Message, ...]
    kind: PromptKind
    category: str | None = None
    attack: str | None = None
    """Attack family, or None for the plain request."""
    base_id: str = ""
    template: str = ""
    split: Split = "report"
    source: str = ""
    plain: str = ""
    """The request before an attack was put round it; empty where there is no attack."""
    target: str = ""
    """What a right answer says, for judges that compare; empty where there is no such thing."""

    @property
    def text(self) -> str:
        """The last user turn."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def request(self) -> str:
        """What is asked for, without an attack's wrapping: what a judge is shown as the request."""
        return self.plain or self.text

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for one JSON line."""
        return {**asdict(self), "messages": [dict(m) for m in self.messages]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Prompt:
        """The record that `to_json` wrote."""
        return cls(**{**row, "messages": tuple(row["messages"])})


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: `chosen` is better than `rejected` as the answer to `messages`."""

    id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    kind: PairKind
    category: str | None = None
    attack: str | None = None
    template: str = ""
    source: str = ""
    weight: float = 1.0
    meta: dict[str, Any] = field(default_factory=dict)
    """`chosen_truncated` and `rejected_truncated` mark sides cut by a token cap, whose end is not taught;
    `file` and `row` are where a pair was read, for whoever has to mend it."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for one JSON line."""
        return {**asdict(self), "messages": [dict(m) for m in self.messages]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Pair:
        """The record that `to_json` wrote."""
        return cls(**{**row, "messages": tuple(row["messages"])})


@dataclass(frozen=True, slots=True)
class Example:
    """A general request with the answer to keep: the anchor that holds ability in place."""

    id: str
    messages: tuple[Message, ...]
    completion: str
    source: str = ""
    weight: float = 1.0
    truncated: bool = False
    """The answer was cut by a token cap, so its end must not be taught."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for one JSON line."""
        return {**asdict(self), "messages": [dict(m) for m in self.messages]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Example:
        """The record that `to_json` wrote."""
        return cls(**{**row, "messages": tuple(row["messages"])})


def dumps(row: dict[str, Any]) -> str:
    """One JSON line; non-ASCII text stays readable."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True)
