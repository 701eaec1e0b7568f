"""ALERT_DPO: preference pairs derived from ALERT (arXiv 2404.08676).

Its prompts are ALERT's own: trained on it, a model must be scored on ALERT prompts of other templates
(`splits.without_templates_of`).
"""

from __future__ import annotations

from safepref.data.records import Pair
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_pair


def _parse(row: Row, where: Where) -> Pair:
    prompt, chosen, rejected = (column(row, where, name) for name in ("prompt", "chosen", "rejected"))
    return make_pair(
        where,
        SOURCE.name,
        prompt,
        chosen,
        rejected,
        category=row.get("category"),
        attack=row.get("attack_type"),
    )


SOURCE = Source(
    name="alert-dpo",
    title="ALERT_DPO",
    holds="pairs",
    licence="CC BY-NC-SA 4.0",
    paper="2404.08676",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("Babelscape/ALERT_DPO", "train", config="alert_dpo"),
)
