"""StrongREJECT: 313 forbidden prompts over 6 categories (arXiv 2402.10260). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Source, make_prompt
from safepref.data.sources.categories import mapped


def _parse(row: Row, where: Where) -> Prompt:
    """The request is `forbidden_prompt` in the authors' file and `prompt` in the hub's copy."""
    asked = row.get("forbidden_prompt") or row.get("prompt")
    if asked is None:
        mend = "give the set in its own columns (category, source, forbidden_prompt)"
        raise RowError(where, "forbidden_prompt", "missing", mend)
    return make_prompt(where, SOURCE.name, asked, category=mapped(SOURCE.name, row.get("category")))


SOURCE = Source(
    name="strongreject",
    title="StrongREJECT",
    holds="prompts",
    licence="MIT",
    paper="2402.10260",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("walledai/StrongREJECT", "train"),
)
