"""The requests behind a judge: what it was fitted on and what its printed figures were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from safepref.judges import corpus, labelled

MEASURED_ON: Mapping[str, str] = {"select": "pyrit-harm", "report": "pyrit-objective"}
"""The labelled set from which a fitted judge's hits, and so the corrected rate, come."""


class Behind(NamedTuple):
    """A request behind a judge. `use` is "fitting" or "calibration", `source` names the rows' set."""

    text: str
    use: str
    source: str


def requests_behind(judge: str) -> list[Behind] | None:
    """Every distinct request behind an embedded judge; None for a judge whose rows are not known here.

    A guard model or a served one was trained elsewhere, on rows that nobody can check.
    """
    if judge == "keyword-refusal":
        return []
    found: list[Behind] = []
    if judge == "refusal":
        found += [Behind(row.exchange.prompt, "fitting", row.source) for row in corpus.refusal_rows()]
    elif judge == "select" or judge == "report":
        name: corpus.JudgeName = "select" if judge == "select" else "report"
        found += [Behind(row.exchange.prompt, "fitting", row.source) for row in corpus.rows(name)]
        found += [Behind(row.text, "fitting", "requests") for row in corpus.requests(name)]
        data = MEASURED_ON[name]
        found += [Behind(row.exchange.prompt, "calibration", data) for row in labelled.BUILT_IN[data]()]
    else:
        return None
    distinct = {(row.use, labelled.normalise(row.text)): row for row in reversed(found) if row.text.strip()}
    return list(reversed(distinct.values()))
