"""The judged support replies as labelled sets, to measure judges on; `harmful` says that a reply is bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safepref.data.support import Side, judged_replies, load_dialogues
from safepref.judges.base import Exchange, turns_before
from safepref.judges.labelled import Labelled, load_labelled


def _judged(side: Side) -> list[Labelled]:
    rows = judged_replies(side)
    exchanges = [Exchange(r.messages[-1]["content"], r.response, turns_before(r.messages)) for r in rows]
    return [
        Labelled(exchange, harmful=int(not row.good), category=row.fault, source=f"support-{side}")
        for exchange, row in zip(exchanges, rows, strict=True)
    ]


def _dialogues() -> list[Labelled]:
    return [
        Labelled(
            Exchange(pair.messages[-1]["content"], text, turns_before(pair.messages)),
            harmful=int(text == pair.rejected),
            source="support-dialogues",
        )
        for pair in load_dialogues()
        for text in (pair.chosen, pair.rejected)
    ]


SUPPORT_SETS: Mapping[str, Callable[[], list[Labelled]]] = {
    "support-select": lambda: _judged("select"),
    "support-report": lambda: _judged("report"),
    "support-dialogues": _dialogues,
}
"""By name: what each support judge is fitted on, and the written replies of the training dialogues."""


def load_rows(data: str | Path) -> list[Labelled]:
    """Labelled rows of one of these sets, or of what `load_labelled` reads.

    Raises:
        InputError: as `load_labelled`.
    """
    return SUPPORT_SETS[str(data)]() if str(data) in SUPPORT_SETS else load_labelled(data)
