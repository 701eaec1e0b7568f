"""The vetting judge: which pairs look as if chosen and rejected were the wrong way round.

It plays the verifier of arXiv 2410.08942, which drops suspicious pairs before training. It is asked of both
answers of a pair, knows nothing of `meta.flipped`, and an answer of which it can say nothing clears no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from safepref.data.records import Pair
from safepref.data.splits import request
from safepref.errors import InputError
from safepref.judges.base import Exchange, Judge, Judgment, Verdict, turns_before
from safepref.judges.degenerate import degenerate
from safepref.judges.language import foreign
from safepref.pairs.noise import is_flipped, turned

BLOCK = 64
"""Pairs that the judge is given at once, which is also what a kill can lose of a judge that keeps its own."""

ANSWERED = ("harmless", "ordinary")
"""Kinds of pairs whose chosen answer should help: refusals are looked for in them, not harm."""

Finding = Literal["good", "suspicious", "unscored"]
Refuses = Callable[[str, str], bool]
"""(prompt, answer) -> whether the answer refuses."""


@dataclass(frozen=True, slots=True)
class Vetted:
    """What was found of one pair, and why."""

    pair: Pair
    finding: Finding
    reason: str = ""
    turnable: bool = False
    """The other way round it would be a good pair."""
    scores: tuple[float | None, float | None] = (None, None)
    """P(harmful) of the chosen and the rejected answer, where the judge was asked."""

    def to_json(self, action: str) -> dict[str, Any]:
        """A plain dictionary for one JSON line; `action` is what was done: kept, dropped or turned."""
        return {
            "id": self.pair.id,
            "kind": self.pair.kind,
            "flipped": is_flipped(self.pair),
            "finding": self.finding,
            "reason": self.reason,
            "chosen_score": self.scores[0],
            "rejected_score": self.scores[1],
            "action": action,
        }


def vet(
    pairs: Sequence[Pair],
    judge: Judge,
    refuses: Refuses,
    requests: Mapping[str, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Vetted]:
    """Look at every pair, `(N,)` in order.

    * harmful: suspicious if the chosen answer is harmful, or likelier so than the rejected one;
    * harmless: suspicious if the chosen answer refuses and the rejected one does not;
    * preference, which may not be about safety at all: suspicious if the chosen answer is harmful (or bad, by
      the judge of another task);
    * unscored where one of the two answers cannot be judged.

    Args:
        pairs: what was built, and the user's own.
        judge: says harmful or harmless of both answers, but for harmless pairs.
        refuses: asked of both answers of harmless pairs.
        requests: bare requests by attacked ones, since an attack's wrapping is not what an answer is about.
        progress: called with the number of pairs newly looked at.
    """
    bare = requests or {}
    found: list[Vetted] = []
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        judged = [pair for pair in block if pair.kind not in ANSWERED]
        asked = [bare.get(request(pair), request(pair)) for pair in judged]
        texts = [
            _shown(q, pair, text) for q, pair in zip(asked, judged, strict=True) for text in _answers(pair)
        ]
        given = judge.judge(texts) if texts else []
        by_pair = iter(zip(given[::2], given[1::2], strict=True))
        found += [_refusal(p, refuses) if p.kind in ANSWERED else _harm(p, *next(by_pair)) for p in block]
        progress(len(block))
    return found


def settle(vetted: Sequence[Vetted], action: Literal["drop", "flip"]) -> tuple[list[Pair], list[str]]:
    """The pairs that are kept, and for each vetted one what was done: kept, dropped or turned.

    Unscored pairs are dropped. `flip` turns those that are good the other way round (`meta.turned`) and drops
    the others.

    Raises:
        InputError: nothing is left.
    """
    kept: list[Pair] = []
    done: list[str] = []
    for row in vetted:
        if row.finding == "good":
            kept.append(row.pair)
            done.append("kept")
        elif action == "flip" and row.turnable:
            back = turned(row.pair)
            kept.append(replace(back, meta={**back.meta, "turned": True}))
            done.append("turned")
        else:
            done.append("dropped")
    if vetted and not kept:
        why = Counter(row.reason for row in vetted).most_common(1)[0][0]
        raise InputError(
            f"data.vet is {action}: the vetting judge leaves none of {len(vetted)} pairs (mostly: {why}); "
            "give another judges.vet, or set data.vet to null"
        )
    return kept, done


def counts_of(vetted: Sequence[Vetted], done: Sequence[str]) -> dict[str, Any]:
    """`vetted`, `suspicious`, `unscored`, `dropped`, `turned`; of the flipped pairs how many were `caught`
    (dropped or turned back) and `missed`, and how many good ones were `lost` (dropped or turned), in all and
    `by_kind`.
    """
    kinds = sorted({row.pair.kind for row in vetted})
    rows = list(zip(vetted, done, strict=True))
    by_kind = {kind: _counts([row for row in rows if row[0].pair.kind == kind]) for kind in kinds}
    return {**_counts(rows), "by_kind": by_kind}


def _counts(rows: Sequence[tuple[Vetted, str]]) -> dict[str, int]:
    wrong = [done for row, done in rows if is_flipped(row.pair)]
    right = [done for row, done in rows if not is_flipped(row.pair)]
    return {
        "vetted": len(rows),
        "suspicious": sum(row.finding == "suspicious" for row, _ in rows),
        "unscored": sum(row.finding == "unscored" for row, _ in rows),
        "dropped": sum(done == "dropped" for _, done in rows),
        "turned": sum(done == "turned" for _, done in rows),
        "flipped": len(wrong),
        "caught": sum(done != "kept" for done in wrong),
        "missed": wrong.count("kept"),
        "lost": sum(done != "kept" for done in right),
    }


def _shown(asked: str, pair: Pair, answer: str) -> Exchange:
    return Exchange(asked, answer, turns_before(pair.messages), str(pair.meta.get("target", "")))


def _answers(pair: Pair) -> tuple[str, str]:
    return pair.chosen, pair.rejected


def _harm(pair: Pair, chosen: Judgment, rejected: Judgment) -> Vetted:
    scores = (chosen.score, rejected.score)
    reasons = [degenerate(text) for text in _answers(pair)]
    for side, judgment, reason in zip(("chosen", "rejected"), (chosen, rejected), reasons, strict=True):
        if reason or judgment.verdict is Verdict.UNSCORED or judgment.score is None:
            why = reason or judgment.reason or "no verdict"
            return Vetted(pair, "unscored", f"{side} answer: {why}", scores=scores)
    first, second = chosen.score or 0.0, rejected.score or 0.0
    turnable = not rejected.verdict.bad and first > second
    if chosen.verdict.bad:
        return Vetted(pair, "suspicious", f"the chosen answer is {chosen.verdict.value}", turnable, scores)
    if pair.kind == "harmful" and first > second:
        return Vetted(pair, "suspicious", "the rejected answer is the safer one", turnable, scores)
    return Vetted(pair, "good", scores=scores)


def _refusal(pair: Pair, refuses: Refuses) -> Vetted:
    for side, text in zip(("chosen", "rejected"), _answers(pair), strict=True):
        if why := degenerate(text) or foreign(text):
            return Vetted(pair, "unscored", f"{side} answer: {why}")
    chosen, rejected = (refuses(request(pair), text) for text in _answers(pair))
    if chosen and not rejected:
        return Vetted(pair, "suspicious", "the chosen answer refuses, the rejected one does not", True)
    return Vetted(pair, "good")
