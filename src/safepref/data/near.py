"""Near-duplicate texts and template keys, by words: no model, deterministic, seconds for ten thousand texts.

Red-team prompts come in families ("Tell me how to …", "Help me spread … about …"), many of them written by
filling a slot, so a random split puts the same template on both sides. Texts fall into one family when they
share their first four words, or when the TF-IDF cosine of their words is high, or, in a large set, when it is
high after rare words (the slot fillers) are blanked out.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import sparse

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

NEAR = 0.8
"""Cosine from which two texts count as near-duplicates."""
FIRST_WORDS = 4
"""Texts that share so many first words share a template."""
_SLOTS_FROM = 4000
"""Texts from which a word's rarity tells a slot filler from an ordinary word."""
_RARE = 2
_BLOCK = 256


def words(text: str) -> list[str]:
    """The words of a text, case-folded and NFKC-normalised; a text without words is its own single word."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found or [text.strip() or "(empty)"]


def normalised(text: str) -> str:
    """A text as its words only: equal for texts that differ in case, punctuation or spacing."""
    return " ".join(words(text))


def near_duplicates(
    texts: Sequence[str], others: Sequence[str] | None = None, threshold: float = NEAR
) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, cosine) at or above `threshold`: i < j within `texts`, or i in `texts` and j in `others`.

    TF-IDF over words and word pairs, fitted on all texts given. Time grows with the product of the lengths:
    about 3 s for 10,000 against themselves.
    """
    both = [*texts, *(others or ())]
    if len(texts) == 0 or len(both) < 2:
        return
    matrix = _tfidf([normalised(text) for text in both], 2)
    if others is None:
        yield from ((i, j, c) for i, j, c in _cosines(matrix, matrix, threshold) if i < j)
    else:
        yield from _cosines(matrix[: len(texts)], matrix[len(texts) :], threshold)


def template_keys(texts: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """One key for each text, equal for texts of one family: its commonest template name, else first words.

    Args:
        texts: `(N,)` texts. Keys depend on the whole set, so give all that must be kept apart in one call.
        known: `(N,)` template names that the data carry, or empty. Texts of one known template stay together.
    """
    tokens = [words(text) for text in texts]
    plain = [" ".join(found) for found in tokens]
    families = _Families(len(texts))
    families.join_equal([" ".join(found[:FIRST_WORDS]) for found in tokens])
    if known:
        families.join_equal([name or None for name in known])
    first = _first_index(plain)
    distinct = list(first)
    for i, j, _ in near_duplicates(distinct):
        families.join(first[distinct[i]], first[distinct[j]])
    if len(distinct) >= _SLOTS_FROM:
        _join_slots(families, tokens)
    starts = [" ".join(found[:FIRST_WORDS]) for found in tokens]
    return families.names([name or start for name, start in zip(known or starts, starts, strict=True)])


def _first_index(items: Sequence[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        first.setdefault(item, index)
    return first


def _join_slots(families: _Families, tokens: Sequence[Sequence[str]]) -> None:
    """Join texts that are near-duplicates once words of at most two texts are blanked out.

    A text of which less than a template's worth of words would be left (names alone, another language than
    the rest) stays whole: blanks alone are no template.
    """
    frequency = Counter(word for found in tokens for word in set(found))
    blanked = []
    for found in tokens:
        frame = [word if frequency[word] > _RARE else "_" for word in found]
        blanked.append(" ".join(frame if len(frame) - frame.count("_") >= FIRST_WORDS else found))
    families.join_equal(blanked)
    first = _first_index(blanked)
    distinct = list(first)
    matrix = _tfidf(distinct, 3)
    for i, j, _ in _cosines(matrix, matrix, NEAR):
        families.join(first[distinct[i]], first[distinct[j]])


class _Families:
    """Disjoint sets over N texts."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return index

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        self.parent[b] = a

    def join_equal(self, keys: Iterable[str | None]) -> None:
        first: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, index), index)

    def names(self, labels: Sequence[str]) -> list[str]:
        """The commonest label of each family, for each member; ties go to the first in the alphabet.

        A known name may read like another family's first words; the two then share a key, which errs on
        the safe side.
        """
        counts: dict[int, Counter[str]] = {}
        roots = [self.root(index) for index in range(len(labels))]
        for root, label in zip(roots, labels, strict=True):
            counts.setdefault(root, Counter())[label] += 1
        best = {root: min(count, key=lambda k: (-count[k], k)) for root, count in counts.items()}
        return [best[root] for root in roots]


def _tfidf(texts: Sequence[str], longest: int) -> sparse.csr_matrix:
    """Unit rows of TF-IDF weights of runs of 1 to `longest` words, a `(N, V)` sparse matrix.

    1 + log(count) times log((1 + N) / (1 + texts with it)) + 1. Written out, because it is shorter than the
    seconds that importing a learning library costs each command.
    """
    vocabulary: dict[str, int] = {}
    columns: list[int] = []
    counts: list[int] = []
    starts = [0]
    for text in texts:
        found = text.split()
        runs = Counter(
            " ".join(found[i : i + n]) for n in range(1, longest + 1) for i in range(len(found) - n + 1)
        )
        columns += [vocabulary.setdefault(run, len(vocabulary)) for run in runs]
        counts += runs.values()
        starts.append(len(columns))
    shape = (len(texts), len(vocabulary))
    spread = np.bincount(columns, minlength=len(vocabulary))
    weights = (1 + np.log(counts)) * (np.log((1 + len(texts)) / (1 + spread)) + 1)[columns]
    lengths = np.sqrt(np.add.reduceat(weights**2, starts[:-1]))
    weights = weights / np.repeat(lengths, np.diff(starts))
    return sparse.csr_matrix((weights.astype(np.float32), columns, starts), shape=shape)


def _cosines(
    left: sparse.csr_matrix, right: sparse.csr_matrix, threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Entries of `left @ right.T` at or above `threshold`, in blocks of rows so that memory stays small."""
    transposed = right.T.tocsr()
    for start in range(0, left.shape[0], _BLOCK):
        block = (left[start : start + _BLOCK] @ transposed).tocoo()
        # Equal texts come out a rounding error below 1.
        keep = block.data >= threshold - 1e-6
        order = np.lexsort((block.col[keep], block.row[keep]))
        rows, columns, values = (a[keep][order] for a in (block.row, block.col, block.data))
        for i, j, cosine in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
            yield start + i, j, cosine
