"""Whether what is learned from also stands in the evaluation: equal, contained, or nearly equal.

Definitions are in docs/definitions.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safepref.data.findings import Finding, warning
from safepref.data.minhash import similar
from safepref.data.near import normalised
from safepref.data.rows import Where, show

NEAR = 0.7
"""Jaccard similarity of character shingles from which two texts count as near-duplicates."""
CONTAINED_WORDS = 5
"""An evaluated text of fewer words is not looked for inside longer ones: it would be found everywhere."""

_NUMBER = re.compile(r"\d+")
Kind = Literal["exact", "near"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A text that something was fitted on: `use` says what, such as "training" or "judge report: fitting".

    A row of which no text is left has an empty one: it is counted and equals nothing.
    """

    text: str
    use: str
    where: Where
    mend: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A text that is evaluated, from `source`; `numbers` marks questions that a number turns into others."""

    text: str
    source: str
    numbers: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """One learned text and the evaluated one that is most like it; `similarity` is Jaccard, 1 for equal."""

    learned: Learned
    asked: Asked
    kind: Kind
    similarity: float

    def finding(self) -> Finding:
        """The match as a line of the data doctor."""
        what = "also stands" if self.kind == "exact" else "nearly stands"
        problem = (
            f"{self.learned.use}: {what} in evaluation, {self.asked.source} "
            f"(similarity {self.similarity:.2f}: {show(self.asked.text)})"
        )
        return warning(self.learned.where, "prompt", problem, self.learned.mend, self.learned.text)


def contamination(learned: Sequence[Learned], asked: Sequence[Asked], threshold: float = NEAR) -> list[Match]:
    """The best match of each learned text that has one, in the order of `learned`.

    Exact: the words are equal but for case, punctuation and spacing, or an evaluated text of at least
    CONTAINED_WORDS words stands inside the learned one (an attack's template round it). Near: Jaccard of
    character shingles at or above `threshold`, found by MinHash; of two questions that `numbers` marks, their
    numbers must be equal too. Deterministic; some seconds for ten thousand texts on a side.
    """
    by_text: dict[str, Asked] = {}
    for question in asked:
        by_text.setdefault(normalised(question.text), question)
    plain = [normalised(item.text) if item.text.strip() else "" for item in learned]
    inside = _inside(list(dict.fromkeys(plain)), list(by_text))
    distinct = [text for text in dict.fromkeys(plain) if text and text not in by_text and text not in inside]
    evaluated = list(by_text)
    near: dict[str, tuple[float, str]] = {}
    for i, j, jaccard in similar(distinct, evaluated, threshold):
        text, other = distinct[i], evaluated[j]
        if by_text[other].numbers and _NUMBER.findall(text) != _NUMBER.findall(other):
            continue
        if jaccard > near.get(text, (0.0, ""))[0]:
            near[text] = (jaccard, other)
    found = []
    for item, text in zip(learned, plain, strict=True):
        if text in by_text:
            found.append(Match(item, by_text[text], "exact", 1.0))
        elif text in inside:
            found.append(Match(item, by_text[inside[text]], "exact", 1.0))
        elif text in near:
            jaccard, other = near[text]
            found.append(Match(item, by_text[other], "near", jaccard))
    return found


def summary(learned: Sequence[Learned], asked: Sequence[Asked], matches: Sequence[Match]) -> dict[str, Any]:
    """Counts by use, for results.json: `evaluated` texts, `near_from`, and `uses` with `checked`, `exact` and
    `near` rows each.
    """
    uses: dict[str, dict[str, int]] = {}
    for item in learned:
        row = uses.setdefault(item.use, {"checked": 0, "exact": 0, "near": 0})
        row["checked"] += 1
    for match in matches:
        uses[match.learned.use][match.kind] += 1
    return {"evaluated": len({normalised(a.text) for a in asked}), "near_from": NEAR, "uses": uses}


def summary_line(found: dict[str, Any]) -> str:
    """The counts as one line for a person."""
    parts = [
        f"{use}: {row['exact']} equal and {row['near']} near of {row['checked']}"
        for use, row in found["uses"].items()
    ]
    unknown = [f"{name}: not known" for name in found.get("unknown", ())]
    return f"Contamination of {found['evaluated']} evaluated texts: {'; '.join([*parts, *unknown])}"


def _inside(texts: Sequence[str], evaluated: Sequence[str]) -> dict[str, str]:
    """Texts that hold an evaluated one whole, each with the longest that it holds."""
    starts: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for other in evaluated:
        first = tuple(other.split()[:CONTAINED_WORDS])
        if len(first) == CONTAINED_WORDS:
            starts[first].append(other)
    found: dict[str, str] = {}
    for text in texts:
        held = [other for other in _candidates(text, starts) if f" {other} " in f" {text} " and other != text]
        if held:
            found[text] = max(held, key=lambda other: (len(other), other))
    return found


def _candidates(text: str, starts: dict[tuple[str, ...], list[str]]) -> Iterator[str]:
    split = text.split()
    for at in range(len(split) - CONTAINED_WORDS + 1):
        yield from starts.get(tuple(split[at : at + CONTAINED_WORDS]), ())
