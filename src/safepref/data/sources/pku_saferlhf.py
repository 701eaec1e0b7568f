"""PKU-SafeRLHF: two answers to a prompt, each labelled safe or not (arXiv 2406.15513)."""

from __future__ import annotations

from safepref.data.records import Pair
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_pair


def _parse(row: Row, where: Where) -> Pair | None:
    """The safe answer is chosen; rows with two safe or two unsafe answers are left out."""
    safe = [bool(column(row, where, f"is_response_{i}_safe")) for i in (0, 1)]
    answers = [column(row, where, f"response_{i}") for i in (0, 1)]
    prompt = column(row, where, "prompt")
    if safe[0] == safe[1]:
        return None
    chosen = 0 if safe[0] else 1
    harms = row.get(f"response_{1 - chosen}_harm_category") or {}
    category = next((name for name, holds in harms.items() if holds), None)
    return make_pair(where, SOURCE.name, prompt, answers[chosen], answers[1 - chosen], category=category)


SOURCE = Source(
    name="pku-saferlhf",
    title="PKU-SafeRLHF",
    holds="pairs",
    licence="CC BY-NC 4.0",
    paper="2406.15513",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("PKU-Alignment/PKU-SafeRLHF", "train"),
)
