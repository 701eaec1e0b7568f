"""Answers of the policy under test, generated in planned blocks and logged so that a kill loses one block.

The plan is made once from the whole suite and does not depend on what is already done: a block is either
taken from the log or generated again with exactly the same members, so a resumed evaluation equals an
uninterrupted one even where floating-point results depend on what shares a batch.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from safepref.data.records import Message, Prompt, content_id, dumps
from safepref.generation.base import Completion, Engine, Sampling
from safepref.generation.resumable import answer_all
from safepref.store import read_jsonl, write_jsonl

RESUME = ".resume"


class Progress(Protocol):
    """Called with the stage's name, how many of its items are done, and how many it has."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show it."""
        ...


def silent(stage: str, done: int, total: int) -> None:
    """The progress that shows nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is evaluated, at the strength that the caller has set.

    `id` names model, adapter and strength; logged answers are reused only under an equal id. `model` and
    `tokenizer` are a transformers causal LM and its tokenizer, or None where only text comes out of the
    engine (an API server): likelihood tasks are then skipped, with the reason. `base` says that it is the
    model that the others are held against, whose answers are known already.
    """

    id: str
    engine: Engine
    model: Any = None
    tokenizer: Any = None
    base: bool = False


class ResumeLog:
    """An append-only JSON-lines log of rows with a `key`; a torn last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                    key = row["key"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                self.rows[key] = row
                whole += len(line)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows in one write and wait until they are on the disk."""
        new = list(rows)
        data = "".join(dumps(row) + "\n" for row in new).encode()
        with self.path.open("ab") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        self.rows.update((row["key"], row) for row in new)


def answers(
    policy: Policy,
    conversations: Sequence[Sequence[Message]],
    sampling: Sampling,
    samples_dir: Path,
    *,
    stage: str,
    progress: Progress = silent,
    block: int | None = None,
) -> list[Completion]:
    """One completion for each conversation, in order; finished blocks come from the log.

    Equal conversations are answered once. The log's ids are hashes of policy, engine, conversation and
    sampling, so that no answer of another policy or decoding is taken for this one's.
    """
    keys = [_key(policy, conversation, sampling) for conversation in conversations]
    distinct = list(dict(zip(keys, conversations, strict=True)).items())
    done, total = 0, len(distinct)

    def count(finished: int) -> None:
        nonlocal done
        done += finished
        progress(stage, done, total)

    progress(stage, 0, total)
    path = samples_dir / RESUME / "answers.jsonl"
    found = answer_all(policy.engine, distinct, sampling, path, chunk=block, progress=count)
    return [found[key] for key in keys]


def _key(policy: Policy, conversation: Sequence[Message], sampling: Sampling) -> str:
    turns = json.dumps([dict(turn) for turn in conversation], sort_keys=True)
    # What the engine puts before a conversation is none of its turns.
    system = str(getattr(policy.engine, "system", None))
    decoding = json.dumps(asdict(sampling), sort_keys=True)
    return content_id(policy.id, policy.engine.name, system, turns, decoding)


def sample_row(suite: str, prompt: Prompt, answer: Completion, **more: Any) -> dict[str, Any]:
    """The row of one prompt and answer as it stands in the samples files."""
    return {
        "suite": suite,
        "id": prompt.id,
        "base_id": prompt.base_id or prompt.id,
        "category": prompt.category,
        "attack": prompt.attack,
        "template": prompt.template,
        "split": prompt.split,
        "source": prompt.source,
        "messages": [dict(turn) for turn in prompt.messages],
        "prompt": prompt.text,
        "response": answer.text,
        "tokens": answer.tokens,
        "truncated": answer.truncated,
        **more,
    }


def unscored(unread: str) -> dict[str, str]:
    """What a row says of an answer in a language that its judge does not read; nothing where it is read."""
    return {"unscored": unread} if unread else {}


def unread_counts(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many answers are in a language that was not read, by reason."""
    return dict(sorted(Counter(row["unscored"] for row in rows if row.get("unscored")).items()))


def write_samples(samples_dir: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write `<samples_dir>/<name>.jsonl` atomically."""
    write_jsonl(samples_dir / f"{name}.jsonl", rows)


def read_samples(samples_dir: Path) -> list[dict[str, Any]]:
    """Every finished sample of an evaluation, by file name and row order."""
    return [row for path in sorted(samples_dir.glob("*.jsonl")) for row in read_jsonl(path)]
