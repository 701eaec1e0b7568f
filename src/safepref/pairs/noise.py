"""Label noise on purpose: pairs whose chosen and rejected answers are exchanged after they were built.

The related study measures how much of the safety gain wrong labels take away (arXiv 2410.08942, epsilon of
its data model); which pairs are flipped is kept with them, so that the same can be measured here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from safepref.data.records import Pair, content_id, dumps

FLIPPED = "flipped"
"""Key of a pair's meta: it was exchanged on purpose."""


def turned(pair: Pair) -> Pair:
    """The pair the other way round. Its id stays, so that it is found in a run that did not turn it."""
    meta = dict(pair.meta)
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if f"{other}_truncated" in pair.meta:
            meta[f"{side}_truncated"] = pair.meta[f"{other}_truncated"]
        else:
            meta.pop(f"{side}_truncated", None)
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, meta=meta)


def flip_share(pairs: Sequence[Pair], share: float, seed: int = 0) -> list[Pair]:
    """The pairs in their order, of each kind exactly `share` of them (rounded) turned, with `meta.flipped`.

    Which ones follows from their content and the seed alone; a larger share flips the same ones and more.
    Repeated pairs are flipped together or not at all, for half of them would contradict the others.

    Args:
        pairs: `(N,)`.
        share: 0..1; at 0 the pairs come back as they are, without the mark.
        seed: another seed, other pairs.
    """
    if share == 0:
        return list(pairs)
    kinds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, pair in enumerate(pairs):
        kinds[pair.kind][_rank(pair, seed)].append(at)
    chosen: set[int] = set()
    for ranked in kinds.values():
        left = round(share * sum(map(len, ranked.values())))
        for _, alike in sorted(ranked.items()):
            if len(alike) <= left:
                chosen.update(alike)
                left -= len(alike)
    return [_flipped(pair) if at in chosen else pair for at, pair in enumerate(pairs)]


def is_flipped(pair: Pair) -> bool:
    """Whether the pair was exchanged on purpose."""
    return bool(pair.meta.get(FLIPPED))


def _flipped(pair: Pair) -> Pair:
    other = turned(pair)
    return replace(other, meta={**other.meta, FLIPPED: True})


def _rank(pair: Pair, seed: int) -> str:
    turns = "".join(dumps(dict(message)) for message in pair.messages)
    return content_id(FLIPPED, str(seed), turns, pair.chosen, pair.rejected)
