"""The sentence embedder."""

from __future__ import annotations

import numpy as np
import pytest

from safepref.data.embed import DIMENSIONS, embed

pytestmark = pytest.mark.assets

TEXTS = [
    "The cat sits on the mat.",
    "A cat is sitting on a rug.",
    "Interest rates rose by half a point in March, and bonds fell.",
    "x",
]


def test_paraphrases_are_near_and_rows_do_not_depend_on_the_batch() -> None:
    together = embed(TEXTS)
    assert together.shape == (4, DIMENSIONS)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert together[0] @ together[1] > 0.6
    assert abs(together[0] @ together[2]) < 0.2
    alone = np.concatenate([embed([text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-5)
    assert embed([]).shape == (0, DIMENSIONS)


def test_progress_counts_every_text() -> None:
    seen: list[int] = []
    embed(TEXTS, batch_size=3, progress=seen.append)
    assert sum(seen) == 4
