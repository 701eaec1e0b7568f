"""Families of near-equal texts, so that a text and its variants stay on one side of the splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

from safepref.data.records import Split, content_id

SHARES: tuple[tuple[Split, float], ...] = (("train", 0.6), ("choose", 0.15), ("report", 0.25))


def shingles(text: str, width: int = 4) -> frozenset[tuple[str, ...]]:
    """All runs of `width` words, lower-case, punctuation left out; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[at : at + width]) for at in range(max(1, len(words) - width + 1)))


def clusters(texts: Sequence[str], threshold: float = 0.2) -> list[list[int]]:
    """Group texts by single linkage on shared 4-word runs.

    Two texts are linked where the runs they share are at least `threshold` of the shorter one's: so a text
    and its longer version are one family, which a Jaccard index would miss.

    Returns:
        Lists of indices into `texts`, each in order; the lists are ordered by their first index.
    """
    runs = [shingles(text) for text in texts]
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, found in enumerate(runs):
        for run in found:
            holders[run].append(index)
    shared = Counter(pair for indices in holders.values() for pair in combinations(indices, 2))
    parent = list(range(len(texts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for (first, second), count in shared.items():
        if count >= threshold * min(len(runs[first]), len(runs[second])):
            parent[root(second)] = root(first)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        groups[root(index)].append(index)
    return sorted(groups.values())


def split_by_cluster(texts: Sequence[str], threshold: float = 0.2) -> dict[Split, list[str]]:
    """Share texts out over train, choose and report (about 60, 15 and 25 %), families kept together.

    Families are taken in the order of a hash, each to the side that lacks most of its share; the result does
    not depend on the order of `texts`.
    """
    sides: dict[Split, list[str]] = {side: [] for side, _ in SHARES}
    families = [sorted(texts[index] for index in group) for group in clusters(texts, threshold)]
    for family in sorted(families, key=lambda family: content_id("side", family[0])):
        total = sum(map(len, sides.values())) + len(family)
        side = max(SHARES, key=lambda entry: entry[1] * total - len(sides[entry[0]]))[0]
        sides[side] += family
    return {side: sorted(found) for side, found in sides.items()}
