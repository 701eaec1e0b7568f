"""Answers that survive a kill: finished chunks are appended to a file, a second call goes on from there.

The chunks are fixed by the whole list of prompts, so a continued run decodes the same batches as an
undisturbed one and ends with the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safepref.data.records import Message
from safepref.errors import InputError
from safepref.generation.base import Completion, Engine, Progress, Sampling, evenly
from safepref.store import whole_rows


def answer_all(
    engine: Engine,
    conversations: Sequence[tuple[str, Sequence[Message]]],
    sampling: Sampling,
    path: Path,
    *,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Completion]:
    """Answer every (id, conversation), keeping finished chunks in `path` (JSON lines).

    Args:
        conversations: ids must be distinct. They are decoded longest first.
        chunk: at most so many at a time; null takes what the engine likes.

    Returns:
        Completions by id.
    """
    done = read_answers(path)
    order = sorted(conversations, key=lambda item: (-sum(len(m["content"]) for m in item[1]), item[0]))
    if len({key for key, _ in order}) != len(order):
        raise InputError(f"{path}: prompts with equal ids cannot be answered apart")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        start, most = 0, chunk or engine.block
        while start < len(order):
            part = order[start : start + evenly(len(order) - start, most)]
            start += len(part)
            if all(key in done for key, _ in part):
                if progress is not None:
                    progress(len(part))
                continue
            answers = engine.generate([messages for _, messages in part], sampling, progress)
            for (key, _), answer in zip(part, answers, strict=True):
                done[key] = answer
                stream.write(json.dumps({"id": key, **asdict(answer)}, ensure_ascii=False) + "\n")
            stream.flush()
    return {key: done[key] for key, _ in conversations}


def read_answers(path: Path) -> dict[str, Completion]:
    """The answers already in `path`; a last line torn by a kill is cut off."""
    return {row.pop("id"): Completion(**row) for row in whole_rows(path)}
