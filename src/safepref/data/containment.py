"""Which texts stand inside others, whole or with their letters and words tampered with.

Time grows with the number of texts on both sides and with what they share, not with their product: 10,000
against 10,000 take some seconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import sparse

from safepref.attacks.edits import HOMOGLYPHS, LEET
from safepref.data.minhash import Hashes, shingles
from safepref.data.near import normalised

LEAST_WORDS = 5
"""A text of fewer words is not looked for inside longer ones: it would be found everywhere."""
_COMMON = 0.5
"""Share of a text's weight, in its commonest shingles, that is left out of the search for candidates."""
_BLOCK = 256

_LOOKALIKES = str.maketrans({other: letter for letter, other in HOMOGLYPHS.items()})
_DIGITS = str.maketrans({digit: letter for letter, digit in LEET.items()})
_TOKEN = re.compile(r"\w+")
_SPACED = re.compile(r"\b\w(?: \w\b){2,}")
_REPEATED = re.compile(r"(.)\1+")


def whole_inside(texts: Iterable[str], inner: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each of `texts` that holds others whole, word by word, with those of `inner` that it holds.

    All are `near.normalised`. A text of fewer than LEAST_WORDS words is never found, nor is one in itself.
    """
    starts: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for other in inner:
        first = tuple(other.split()[:LEAST_WORDS])
        if len(first) == LEAST_WORDS:
            starts[first].append(other)
    for text in texts:
        split = text.split()
        begins = {tuple(split[at : at + LEAST_WORDS]) for at in range(len(split) - LEAST_WORDS + 1)}
        near = dict.fromkeys(other for begin in sorted(begins) for other in starts.get(begin, ()))
        held = [other for other in near if f" {other} " in f" {text} " and other != text]
        if held:
            yield text, held


def read_back(text: str) -> str:
    """A text's words with common tampering undone: accents, look-alike letters, digits for letters, letters
    set apart, and repeated letters, which are written once also where they belong.
    """
    bare = unicodedata.normalize("NFKD", text.translate(_LOOKALIKES)).casefold()
    bare = "".join(letter for letter in bare if not unicodedata.combining(letter))
    bare = _TOKEN.sub(lambda match: _letters(match.group()), bare)
    joined = _SPACED.sub(lambda match: match.group().replace(" ", ""), normalised(bare))
    return _REPEATED.sub(r"\1", joined)


def _letters(word: str) -> str:
    """A word with letters for its digits; a number stays one."""
    return word.translate(_DIGITS) if any(letter.isalpha() for letter in word) else word


def nearly_inside(
    texts: Sequence[str], inner: Sequence[str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Tuples (i, j, share): of `inner[j]` so much stands in `texts[i]`, where that is `threshold` or more.

    The share is that of the shingles of `minhash.shingles` after `read_back`, each weighed by the logarithm
    of how rare it is among all texts given, so that "how do I" counts little. Nothing is missed: what shares
    too little of its rare shingles cannot reach the threshold. Sorted by i and j.
    """
    if not texts or not inner:
        return
    outer, parts = ([shingles(read_back(text)) for text in side] for side in (texts, inner))
    known = np.unique(np.concatenate(parts))
    left, right = _matrix(outer, known), _matrix(parts, known)
    spread = np.bincount(left.indices, minlength=len(known)) + np.bincount(
        right.indices, minlength=len(known)
    )
    rarity = np.log((1.0 + len(texts) + len(inner)) / spread)
    total = np.asarray(right @ rarity).ravel()
    rare = right.copy()
    for row in range(len(inner)):
        own = slice(rare.indptr[row], rare.indptr[row + 1])
        share = rarity[rare.indices[own]] / total[row]
        order = np.argsort(-share, kind="stable")
        # Up to and with the first shingle that brings the sum to what is looked at.
        kept = order[: int(np.searchsorted(np.cumsum(share[order]), 1 - _COMMON)) + 1]
        rare.data[own] = 0.0
        rare.data[rare.indptr[row] + kept] = share[kept]
    rare.eliminate_zeros()
    looked = np.asarray(rare.sum(axis=1)).ravel()
    across = rare.T.tocsr()
    for start in range(0, len(texts), _BLOCK):
        block = (left[start : start + _BLOCK] @ across).tocoo()
        # What was not looked at could all be there.
        may = block.data + (1 - looked[block.col]) >= threshold - 1e-9
        for i, j in sorted(zip((block.row[may] + start).tolist(), block.col[may].tolist(), strict=True)):
            mine = right.indices[right.indptr[j] : right.indptr[j + 1]]
            theirs = left.indices[left.indptr[i] : left.indptr[i + 1]]
            found = float(rarity[np.intersect1d(mine, theirs, assume_unique=True)].sum() / total[j])
            if found >= threshold - 1e-9:
                yield i, j, min(found, 1.0)


def _matrix(sets: Sequence[Hashes], known: Hashes) -> sparse.csr_matrix:
    """Which of the `(V,)` known shingles each set holds, `(N, V)` ones."""
    columns = []
    for found in sets:
        at = np.searchsorted(known, found)
        at = at[at < len(known)]
        columns.append(at[known[at] == found[: len(at)]])
    starts = np.cumsum([0, *map(len, columns)])
    flat = np.concatenate(columns)
    return sparse.csr_matrix((np.ones(len(flat)), flat, starts), shape=(len(sets), len(known)))
