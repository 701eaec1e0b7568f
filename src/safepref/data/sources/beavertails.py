"""BeaverTails: answers labelled safe or not over 14 categories, paired by prompt (arXiv 2307.04657)."""

from __future__ import annotations

from collections.abc import Iterator

from safepref.data.records import Pair
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Rows, Source, column, make_pair


def _gather(rows: Rows) -> Iterator[tuple[Where, Row | RowError]]:
    """Join the k-th safe and the k-th unsafe answer to each prompt; what has no partner is left out."""
    answers: dict[str, tuple[dict[str, Row], dict[str, tuple[Where, Row]]]] = {}
    for where, row in rows:
        try:
            if isinstance(row, RowError):
                raise row
            prompt, text = str(column(row, where, "prompt")), str(column(row, where, "response"))
            safe, unsafe = answers.setdefault(prompt, ({}, {}))
            # Several people labelled the same answer: one that was called both is neither.
            if column(row, where, "is_safe"):
                safe.setdefault(text, row)
            else:
                unsafe.setdefault(text, (where, row))
        except RowError as error:
            yield where, error
    for prompt, (safe, unsafe) in answers.items():
        clean = [text for text in safe if text not in unsafe]
        harmful = [item for item in unsafe.items() if item[0] not in safe]
        for chosen, (rejected, (where, row)) in zip(clean, harmful, strict=False):
            yield where, {**row, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def _parse(row: Row, where: Where) -> Pair:
    harms = row.get("category")
    category = (
        next((name for name, holds in harms.items() if holds), None) if isinstance(harms, dict) else None
    )
    return make_pair(where, SOURCE.name, row["prompt"], row["chosen"], row["rejected"], category=category)


SOURCE = Source(
    name="beavertails",
    title="BeaverTails",
    holds="pairs",
    licence="CC BY-NC 4.0",
    paper="2307.04657",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("PKU-Alignment/BeaverTails", "30k_train"),
    gather=_gather,
)
