"""Answers that name one of several categories: F1 by category, their mean, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safepref.judges.base import Verdict
from safepref.statistics import DRAWS, Floats, percentile_interval, resampled_means

Row = dict[str, Any]
UNSCORED = "unscored"


def confusion_scores(rows: Sequence[Row], *, seed: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """What is added to the score of a task whose answers are category names.

    A row's right category is its own `category`; where several are right and the answer names one of them, it
    is that one. The said one is the first of the main judge's `categories`; an answer without a verdict is in
    the column `unscored`, a miss for its category and a hit for none.

    Args:
        rows: sample rows.
        seed: of the bootstrap.
        draws: its resamples of whole requests.

    Returns:
        `macro_f1` with `macro_f1_interval`, `f1` by category (of those that are right for some row), and
        `confusion`: `{right: {said: count}}`.
    """
    named = [_named(row) for row in rows]
    right = sorted({truth for truth, _ in named})
    said = [*right, *sorted({word for _, word in named} - {*right, UNSCORED}), UNSCORED]
    cells = np.zeros((len(rows), len(right), len(said)))
    for at, (truth, word) in enumerate(named):
        cells[at, right.index(truth), said.index(word)] = 1.0
    table = cells.sum(axis=0)
    clusters = [str(row["base_id"]) for row in rows]
    drawn = resampled_means(cells.reshape(len(rows), -1), clusters=clusters, draws=draws, seed=seed)
    # A rare category is in no row of some draws, where it has no F1.
    macros = np.nanmean(_f1(drawn.reshape(-1, len(right), len(said))), axis=1)
    f1 = _f1(table[None])[0]
    return {
        "macro_f1": float(f1.mean()),
        "macro_f1_interval": list(percentile_interval(macros)),
        "f1": dict(zip(right, f1.tolist(), strict=True)),
        "confusion": {
            truth: {word: int(n) for word, n in zip(said, counts, strict=True) if n}
            for truth, counts in zip(right, table, strict=True)
        },
    }


def _named(row: Row) -> tuple[str, str]:
    """The right and the said category of a row."""
    if row["verdict"] == Verdict.UNSCORED.value:
        return str(row["category"]), UNSCORED
    word = str(row["verdicts"][row["judge"]]["categories"][0])
    return (word if row["verdict"] == Verdict.GOOD.value else str(row["category"])), word


def _f1(tables: Floats) -> Floats:
    """F1 `(B, R)` of the right categories, which come first among the said ones, of tables `(B, R, S)`."""
    count = tables.shape[1]
    hits = np.einsum("brr->br", tables[:, :, :count])
    total = tables.sum(axis=2) + tables[:, :, :count].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / total, np.float64)
