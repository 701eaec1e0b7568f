"""SimpleSafetyTests: 100 prompts over 5 areas of severe harm (arXiv 2311.08370). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt
from safepref.data.sources.categories import mapped


def _parse(row: Row, where: Where) -> Prompt:
    """`category` only says whether information or an act is asked for; `harm_area` is the risk."""
    area = mapped(SOURCE.name, row.get("harm_area"))
    return make_prompt(where, SOURCE.name, column(row, where, "prompt"), category=area)


SOURCE = Source(
    name="simple-safety-tests",
    title="SimpleSafetyTests",
    holds="prompts",
    licence="CC BY 4.0 (the hub's copy: CC BY 2.0)",
    paper="2311.08370",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("Bertievidgen/SimpleSafetyTests", "test"),
)
