"""Whether what is learned from also stands in the evaluation: equal, contained, or nearly equal.

Definitions are in docs/definitions.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safepref.data.containment import LEAST_WORDS, nearly_inside, whole_inside
from safepref.data.findings import Finding, warning
from safepref.data.minhash import similar
from safepref.data.near import normalised
from safepref.data.rows import Where, show

NEAR = 0.7
"""Jaccard similarity of character shingles from which two texts count as near-duplicates."""

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
    """A text that is evaluated, from `source`.

    `numbers` marks questions that a number turns into others, `attacked` a request that came with an attack's
    words round or in it, so that only the whole can be looked at.
    """

    text: str
    source: str
    numbers: bool = False
    attacked: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """One learned text and the evaluated one that is most like it.

    `similarity` is 1 for equal, else Jaccard, or the share of a learned text that stands in an attacked one.
    """

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

    Exact: the words are equal but for case, punctuation and spacing; or one of the two, of at least
    `containment.LEAST_WORDS` words, stands whole inside the other (an attack's template round it; questions
    that `numbers` marks are not looked into). Near: Jaccard of character shingles at or above `threshold`,
    found by MinHash; or so large a share of the learned text stands in an attacked prompt, common words
    counting little and tampering undone (`containment.nearly_inside`). Of two questions that `numbers`
    marks, their numbers must be equal too. Deterministic; some seconds for ten thousand texts on a side.
    """
    by_text: dict[str, Asked] = {}
    for question in asked:
        by_text.setdefault(normalised(question.text), question)
    plain = [normalised(item.text) if item.text.strip() else "" for item in learned]
    inside = _inside(list(dict.fromkeys(plain)), by_text)
    distinct = [text for text in dict.fromkeys(plain) if text and text not in by_text and text not in inside]
    near = _near(distinct, by_text, threshold)
    found = []
    for item, text in zip(learned, plain, strict=True):
        if text in by_text:
            found.append(Match(item, by_text[text], "exact", 1.0))
        elif text in inside:
            found.append(Match(item, by_text[inside[text]], "exact", 1.0))
        elif text in near:
            similarity, other = near[text]
            found.append(Match(item, by_text[other], "near", similarity))
    return found


def _inside(texts: Sequence[str], by_text: Mapping[str, Asked]) -> dict[str, str]:
    """Learned texts that hold an evaluated one whole, or that one holds, each with the longest such."""
    found = {
        text: max(held, key=lambda other: (len(other), other)) for text, held in whole_inside(texts, by_text)
    }
    wide = [other for other, question in by_text.items() if not question.numbers]
    for other, held in whole_inside(wide, texts):
        for text in held:
            found.setdefault(text, other)
    return found


def _near(
    texts: Sequence[str], by_text: Mapping[str, Asked], threshold: float
) -> dict[str, tuple[float, str]]:
    """Learned texts that are nearly an evaluated one, or nearly inside an attacked one, with the nearest."""
    evaluated = list(by_text)
    pairs = [(texts[i], evaluated[j], jaccard) for i, j, jaccard in similar(texts, evaluated, threshold)]
    attacked = [question for question in by_text.values() if question.attacked]
    long = [text for text in texts if len(text.split()) >= LEAST_WORDS]
    # The text as it stands: look-alike letters are told from others before they are folded.
    for i, j, share in nearly_inside([question.text for question in attacked], long, threshold):
        pairs.append((long[j], normalised(attacked[i].text), share))
    near: dict[str, tuple[float, str]] = {}
    for text, other, similarity in pairs:
        if by_text[other].numbers and _NUMBER.findall(text) != _NUMBER.findall(other):
            continue
        if similarity > near.get(text, (0.0, ""))[0]:
            near[text] = (similarity, other)
    return near


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
