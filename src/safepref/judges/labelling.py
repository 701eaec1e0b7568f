"""Verdicts for the rows of a file, written block by block so that a kill loses one block at most."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.judges.version import judged_by
from safepref.store import iter_jsonl, json_line, sha256_bytes, sha256_file, write_jsonl

BLOCK = 256
"""Rows that are judged and then written at once."""


def label(
    judge: Judge, in_path: Path, out_path: Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Judge the rows of a JSON lines file; writes each row with verdict, score, categories, judge and reason.

    A verdict that was given carries prompt_sha256, the hash of what the judge was given: the exact prompt of
    a model, else the two texts. Until all rows are judged, they stand in `OUT.part`; a call with the same
    judge and data after a kill goes on from there, and asks again about unscored rows.

    Returns:
        The number of rows.

    Raises:
        InputError: a row lacks `prompt` or `response`, or they are not strings; the error names file and row.
    """
    rows = []
    for number, row in enumerate(iter_jsonl(in_path), 1):
        for field in ("prompt", "response"):
            if not isinstance(row.get(field), str):
                raise InputError(f"{in_path}:{number}: field {field!r} is {row.get(field)!r}; give a string")
        rows.append(row)
    part = out_path.with_name(f"{out_path.name}.part")
    head = {**judged_by(judge.card()), "data_sha256": sha256_file(in_path)}
    done = _begun(part, head)
    open_ones = [at for at in range(len(rows)) if at not in done]
    if not done:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json_line(head), encoding="utf-8")
    if progress is not None:
        progress(len(done), len(rows))
    with part.open("a", encoding="utf-8") as stream:
        # The torn last row of a killed call must not swallow the first new one.
        stream.write("\n")
        for start in range(0, len(open_ones), BLOCK):
            block = open_ones[start : start + BLOCK]
            given = judge.judge([Exchange(rows[at]["prompt"], rows[at]["response"]) for at in block])
            for at, judgment in zip(block, given, strict=True):
                done[at] = _labelled(rows[at], judgment)
                stream.write(json_line({"at": at, "row": done[at]}))
            stream.flush()
            os.fsync(stream.fileno())
            if progress is not None:
                progress(len(rows) - len(open_ones) + start + len(block), len(rows))
    write_jsonl(out_path, (done[at] for at in range(len(rows))))
    part.unlink()
    return len(rows)


def _labelled(row: dict[str, Any], judgment: Judgment) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key != "prompt_sha256"}
    if judgment.verdict is Verdict.UNSCORED:
        return {**kept, **judgment.to_json()}
    given = sha256_bytes(json.dumps([row["prompt"], row["response"]]).encode())
    return {**kept, "prompt_sha256": given, **judgment.to_json()}


def _begun(part: Path, head: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Scored rows by place that a killed call of the same judge on the same data left behind."""
    found: dict[int, dict[str, Any]] = {}
    lines = part.read_bytes().split(b"\n") if part.is_file() else []
    for number, line in enumerate(lines):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if number == 0 and value != head:
            return {}
        if number and value["row"]["verdict"] != Verdict.UNSCORED.value:
            found[value["at"]] = value["row"]
    return found
