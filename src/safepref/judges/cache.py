"""Judgments on disk, keyed by what was judged and by whom, so that an identical answer is judged once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from safepref import __version__
from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.judges.registry import is_embedded, load_judge
from safepref.store import cache_dir, sha256_bytes, sha256_json


class CachedJudge:
    """Wraps any judge. One JSON-lines file for each judge, card and version; rows are appended whole.

    The card must name all that a verdict depends on: weights, threshold, what is asked; of a server's model
    it has what the server says of it. Unscored judgments are not kept, for a server that failed may answer
    next time; nor those in words alone, for it may give token probabilities then.
    """

    def __init__(self, judge: Judge, folder: Path | None = None) -> None:
        self._judge = judge
        self.name = judge.name
        # How texts are cleaned and verdicts read is no part of a card, and may change with the version.
        card = sha256_json([__version__, judge.card()])[:16]
        name = re.sub(r"[^\w.-]", "_", judge.name)[:80]
        self._file = (folder or cache_dir("judgments")) / f"{name}-{card}.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read(self._file)
        self.target = getattr(judge, "target", "harmful")
        self.asked = self.judged = 0
        """Exchanges that were to be judged, and how many of them the judge itself was given."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each; only exchanges never judged before reach the judge, and each of them once."""
        # Not sha256_json: a lone surrogate, which prompt files can hold, has no UTF-8.
        keys = [sha256_bytes(json.dumps(list(exchange)).encode()) for exchange in exchanges]
        fresh = {key: e for key, e in zip(keys, exchanges, strict=True) if key not in self._known}
        self.asked, self.judged = self.asked + len(keys), self.judged + len(fresh)
        made = dict(zip(fresh, self._judge.judge(list(fresh.values())), strict=True)) if fresh else {}
        lines = [
            json.dumps({"key": key, **judgment.to_json()}) + "\n"
            for key, judgment in made.items()
            if _keeps(judgment)
        ]
        if lines:
            with FileLock(self._file.with_suffix(".lock")), self._file.open("a", encoding="utf-8") as stream:
                # A half-written last row of a killed run must not swallow the first new one.
                stream.write("\n" if _lacks_newline(self._file) else "")
                stream.write("".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        self._known |= {key: judgment for key, judgment in made.items() if _keeps(judgment)}
        return [made[key] if key in made else self._known[key] for key in keys]

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Whether the wrapped judge was fitted on each exchange."""
        inner = getattr(self._judge, "fitted_on", None)
        return list(inner(exchanges)) if inner is not None else [False] * len(exchanges)

    def reuse(self) -> dict[str, Any]:
        """`asked`, `reused` and their ratio `rate` (null where nothing was asked), since it was loaded."""
        reused = self.asked - self.judged
        return {
            "asked": self.asked,
            "reused": reused,
            "rate": round(reused / self.asked, 4) if self.asked else None,
        }

    def card(self) -> dict[str, Any]:
        """The wrapped judge's card."""
        return self._judge.card()


def _keeps(judgment: Judgment) -> bool:
    return judgment.verdict is not Verdict.UNSCORED and not judgment.in_words


def load_cached(name: str) -> Judge:
    """The judge of that name. A guard's or a server's judgments are kept: the same answers come again with a
    second run, method or strength, and are dear; an embedded judge is quicker than its file would be.
    """
    judge = load_judge(name)
    return judge if is_embedded(name) else CachedJudge(judge)


def said_reuse(*judges: Judge) -> list[str]:
    """A line for each judge that re-used judgments, or could have."""
    found = [(judge.name, judge.reuse()) for judge in judges if isinstance(judge, CachedJudge)]
    return [
        f"{name}: {counts['reused']} of {counts['asked']} judgments re-used ({counts['rate']:.0%})"
        for name, counts in found
        if counts["asked"]
    ]


def _read(path: Path) -> dict[str, Judgment]:
    """The judgments in a file by key; a row torn by a killed writer is left out and judged again."""
    found = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            row = json.loads(line)
            key, verdict, categories = row.pop("key"), Verdict(row.pop("verdict")), row.pop("categories")
            found[key] = Judgment(verdict=verdict, categories=tuple(categories), **row)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def _lacks_newline(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
