"""Judgments on disk, keyed by what was judged and by whom, so that an identical answer is judged once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.store import cache_dir, sha256_json


class CachedJudge:
    """Wraps any judge. One JSON-lines file for each judge and card; rows are appended whole.

    Unscored judgments are not kept: a server that failed may answer next time.
    """

    def __init__(self, judge: Judge, folder: Path | None = None) -> None:
        self._judge = judge
        self.name = judge.name
        self.asked = 0
        self.reused = 0
        card = sha256_json(judge.card())[:16]
        self._file = (folder or cache_dir("judgments")) / f"{judge.name.replace('/', '_')}-{card}.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Judgment] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                # A killed writer may leave half a row at the end; it is judged again.
                try:
                    row = json.loads(line)
                    key = row.pop("key")
                    self._known[key] = _judgment(row)
                except (json.JSONDecodeError, KeyError, TypeError, ValueError):
                    continue

    @property
    def reuse(self) -> float:
        """Share of judgments that came from the cache, 0..1."""
        return self.reused / self.asked if self.asked else 0.0

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each; only exchanges never judged before reach the judge, and each of them once."""
        keys = [sha256_json(list(exchange)) for exchange in exchanges]
        fresh = {key: e for key, e in zip(keys, exchanges, strict=True) if key not in self._known}
        made = dict(zip(fresh, self._judge.judge(list(fresh.values())), strict=True))
        lines = [
            json.dumps({"key": key, **judgment.to_json()}, ensure_ascii=False) + "\n"
            for key, judgment in made.items()
            if judgment.verdict is not Verdict.UNSCORED
        ]
        if lines:
            with FileLock(self._file.with_suffix(".lock")), self._file.open("a", encoding="utf-8") as stream:
                # A half-written last row of a killed run must not swallow the first new one.
                stream.write("\n" if _lacks_newline(self._file) else "")
                stream.write("".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        self._known |= {k: j for k, j in made.items() if j.verdict is not Verdict.UNSCORED}
        self.asked += len(keys)
        self.reused += len(keys) - len(fresh)
        return [made[key] if key in made else self._known[key] for key in keys]

    def card(self) -> dict[str, Any]:
        """The wrapped judge's card."""
        return self._judge.card()


def _judgment(row: dict[str, Any]) -> Judgment:
    row["verdict"] = Verdict(row["verdict"])
    row["categories"] = tuple(row["categories"])
    return Judgment(**row)


def _lacks_newline(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
