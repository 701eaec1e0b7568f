"""Judgments on disk, keyed by what was judged and by whom, so that an identical answer is judged once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safepref.judges.base import Exchange, Judge, Judgment, Verdict
from safepref.judges.kept import keep, kept_file, read_kept, reuse, text_key
from safepref.judges.registry import is_embedded, load_judge


class CachedJudge:
    """Wraps any judge. One JSON-lines file for each judge, card and version; rows are appended whole.

    The card must name all that a verdict depends on: weights, threshold, what is asked; of a server's model
    it has what the server says of it. Unscored judgments are not kept, for a server that failed may answer
    next time; nor those in words alone, for it may give token probabilities then.
    """

    def __init__(self, judge: Judge, folder: Path | None = None) -> None:
        self._judge = judge
        self.name = judge.name
        self._file = kept_file(judge.name, judge.card(), folder)
        self._known = _read(self._file)
        self.target = getattr(judge, "target", "harmful")
        self.asked = self.judged = 0
        """Exchanges that were to be judged, and how many of them the judge itself was given."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each; only exchanges never judged before reach the judge, and each of them once."""
        # What only some exchanges have is no part of the others' keys, by which judgments are kept already.
        keys = [text_key(*(e if any(e[2:]) else e[:2])) for e in exchanges]
        fresh = {key: e for key, e in zip(keys, exchanges, strict=True) if key not in self._known}
        self.asked, self.judged = self.asked + len(keys), self.judged + len(fresh)
        made = dict(zip(fresh, self._judge.judge(list(fresh.values())), strict=True)) if fresh else {}
        whole = {key: judgment for key, judgment in made.items() if _keeps(judgment)}
        keep(self._file, ({"key": key, **judgment.to_json()} for key, judgment in whole.items()))
        self._known |= whole
        return [made[key] if key in made else self._known[key] for key in keys]

    def fitted_on(self, exchanges: Sequence[Exchange]) -> list[bool]:
        """Whether the wrapped judge was fitted on each exchange."""
        inner = getattr(self._judge, "fitted_on", None)
        return list(inner(exchanges)) if inner is not None else [False] * len(exchanges)

    def reuse(self) -> dict[str, Any]:
        """`asked`, `reused` and their ratio `rate` (null where nothing was asked), since it was loaded."""
        return reuse(self.asked, self.judged)

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


@runtime_checkable
class Reusing(Protocol):
    """Anything that keeps what it was asked before."""

    name: str

    def reuse(self) -> dict[str, Any]:
        """`asked`, `reused` and `rate`."""
        ...


def said_reuse(*judges: object) -> list[str]:
    """A line for each judge that re-used judgments, or could have."""
    found = [(judge.name, judge.reuse()) for judge in judges if isinstance(judge, Reusing)]
    return [
        f"{name}: {counts['reused']} of {counts['asked']} judgments re-used ({counts['rate']:.0%})"
        for name, counts in found
        if counts["asked"]
    ]


def _read(path: Path) -> dict[str, Judgment]:
    """The judgments in a file by key; a row that is none is left out and judged again."""
    found = {}
    for row in read_kept(path):
        try:
            key, verdict, categories = row.pop("key"), Verdict(row.pop("verdict")), row.pop("categories")
            found[key] = Judgment(verdict=verdict, categories=tuple(categories), **row)
        except (KeyError, TypeError, ValueError):
            continue
    return found
