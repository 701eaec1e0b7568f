"""AILuminate 1.0 demo prompts: 12 hazards, asked by plain and by skilled users (arXiv 2503.05731).

Evaluation only. The English and the French file have the same columns.
"""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Source, column, make_prompt
from safepref.data.sources.categories import mapped


def _parse(row: Row, where: Where) -> Prompt:
    """Columns: release_prompt_id, prompt_text, hazard, persona, locale, prompt_hash."""
    hazard = mapped(SOURCE.name, row.get("hazard"))
    return make_prompt(where, SOURCE.name, column(row, where, "prompt_text"), category=hazard)


SOURCE = Source(
    name="ailuminate",
    title="AILuminate 1.0 (demo prompts)",
    holds="prompts",
    licence="CC BY 4.0",
    paper="2503.05731",
    fit_allowed=False,
    parse=_parse,
    home="github.com/mlcommons/ailuminate, airr_official_1.0_demo_en_us_prompt_set_release.csv",
)
