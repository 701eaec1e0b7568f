"""What models said of texts, on disk: JSON lines in one file for each model, card and version."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from safepref import __version__
from safepref.store import cache_dir, sha256_bytes, sha256_json


def kept_file(name: str, card: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Where what a model of that card says is kept; the folder is made."""
    # How texts are cleaned and verdicts read is no part of a card, and may change with the version.
    version = sha256_json([__version__, card])[:16]
    stem = re.sub(r"[^\w.-]", "_", name)[:80]
    path = (folder or cache_dir("judgments")) / f"{stem}-{version}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def text_key(*texts: str) -> str:
    """A hash of texts, none of which runs into the next."""
    # Not sha256_json: a lone surrogate, which prompt files can hold, has no UTF-8.
    return sha256_bytes(json.dumps(list(texts)).encode())


def read_kept(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; one torn by a killed writer is left out and made again."""
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def keep(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows whole, whoever else is writing."""
    lines = [json.dumps(row) + "\n" for row in rows]
    if not lines:
        return
    with FileLock(path.with_suffix(".lock")), path.open("a", encoding="utf-8") as stream:
        # A half-written last row of a killed run must not swallow the first new one.
        stream.write("\n" if _lacks_newline(path) else "")
        stream.write("".join(lines))
        stream.flush()
        os.fsync(stream.fileno())


def _lacks_newline(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


def reuse(asked: int, judged: int) -> dict[str, Any]:
    """`asked`, `reused` and their ratio `rate` (null where nothing was asked)."""
    reused = asked - judged
    return {"asked": asked, "reused": reused, "rate": round(reused / asked, 4) if asked else None}
