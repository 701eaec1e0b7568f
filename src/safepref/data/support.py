"""The support dialogues that ship with safepref (data/support/README.md), written for it, Apache-2.0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from typing import Any, Literal, TypeAlias

from safepref.data.readers import read_pairs
from safepref.data.records import Message, Pair
from safepref.store import read_jsonl

Side: TypeAlias = Literal["select", "report"]
SOURCE = "support"


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """A reply to a dialogue, good or bad; `fault` says what is wrong with a bad one."""

    messages: tuple[Message, ...]
    response: str
    good: bool
    fault: str
    domain: str


@cache
def load_dialogues() -> tuple[Pair, ...]:
    """The dialogues, each with its good reply chosen over its bad one; the category is the domain."""
    with as_file(files("safepref.data").joinpath("support", "dialogues.jsonl")) as path:
        pairs = read_pairs(path)
        domains = [str(row["domain"]) for row in read_jsonl(path)]
    return tuple(
        replace(pair, category=domain, source=SOURCE) for pair, domain in zip(pairs, domains, strict=True)
    )


@cache
def judged_replies(side: Side) -> tuple[JudgedReply, ...]:
    """The judged replies that the judge of that side is fitted on."""
    with as_file(files("safepref.data").joinpath("support", f"judged.{side}.jsonl")) as path:
        rows: list[dict[str, Any]] = read_jsonl(path)
    return tuple(
        JudgedReply(tuple(row["messages"]), row["response"], bool(row["good"]), row["fault"], row["domain"])
        for row in rows
    )
