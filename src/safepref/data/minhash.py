"""Near-duplicate texts between two large sets, by MinHash over character shingles.

Time grows with the sum of the sets' lengths and not with their product. Signatures only find candidates:
whatever is returned has its exact Jaccard similarity. Broder 1997, "On the resemblance and containment of
documents"; banding as in Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from safepref.data.near import normalised

SHINGLE = 5
"""Characters of a shingle."""
BANDS, ROWS = 32, 4
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^4)^32: 0.9998 at 0.7."""
_CHUNK = 1 << 20
_SLACK = 0.2
"""How far below the threshold an estimate may lie and still be looked at: five standard errors at 0.7."""

Hashes = NDArray[np.uint64]


def shingles(text: str) -> Hashes:
    """Distinct 64-bit hashes of the shingles of a text's words, sorted; a short text is one shingle."""
    points = np.frombuffer(normalised(text).encode("utf-32-le", "surrogatepass"), np.uint32)
    width = min(SHINGLE, len(points))
    windows = np.lib.stride_tricks.sliding_window_view(points.astype(np.uint64), width)
    # Odd powers of one constant: equal windows give equal sums, on every machine, and nothing else matters.
    powers = np.asarray([pow(0x9E3779B97F4A7C15, k + 1, 1 << 64) for k in range(width)], np.uint64)
    return np.unique(_mix(windows @ powers))


def signatures(sets: Sequence[Hashes]) -> Hashes:
    """MinHash signatures of sets of hashes, none of them empty, `(N, BANDS * ROWS)`."""
    rng = np.random.default_rng(2409)
    salts = rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)
    out = np.empty((len(sets), BANDS * ROWS), np.uint64)
    start = 0
    while start < len(sets):
        stop, size = start, 0
        while stop < len(sets) and (size == 0 or size + len(sets[stop]) <= _CHUNK):
            size += len(sets[stop])
            stop += 1
        flat = np.concatenate(sets[start:stop])
        edges = np.cumsum([0, *(len(part) for part in sets[start : stop - 1])])
        for at, salt in enumerate(salts):
            out[start:stop, at] = np.minimum.reduceat(_mix(flat ^ salt), edges)
        start = stop
    return out


def similar(
    texts: Sequence[str], others: Sequence[str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Pairs (i in `texts`, j in `others`, Jaccard) at or above `threshold`, sorted; the same on every run."""
    if not texts or not others:
        return
    left, right = [shingles(text) for text in texts], [shingles(text) for text in others]
    mine, theirs = signatures(left), signatures(right)
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        columns = slice(band * ROWS, (band + 1) * ROWS)
        index: dict[bytes, list[int]] = defaultdict(list)
        for j, row in enumerate(np.ascontiguousarray(theirs[:, columns])):
            index[row.tobytes()].append(j)
        for i, row in enumerate(np.ascontiguousarray(mine[:, columns])):
            pairs.update((i, j) for j in index.get(row.tobytes(), ()))
    if not pairs:
        return
    found = np.asarray(sorted(pairs))
    estimate = np.concatenate(
        [
            (mine[part[:, 0]] == theirs[part[:, 1]]).mean(axis=1)
            for part in np.array_split(found, 1 + len(found) // 65536)
        ]
    )
    for i, j in found[estimate >= threshold - _SLACK].tolist():
        shared = len(np.intersect1d(left[i], right[j], assume_unique=True))
        jaccard = shared / (len(left[i]) + len(right[j]) - shared)
        if jaccard >= threshold:
            yield i, j, jaccard


def _mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64: spreads every bit of a value over all of them."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
