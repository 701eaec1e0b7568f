"""ALERT: red-team prompts over 6 macro and 32 micro categories (arXiv 2404.08676)."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt


def _parse(row: Row, where: Where) -> Prompt:
    prompt, category = column(row, where, "prompt"), column(row, where, "category")
    return make_prompt(where, SOURCE.name, prompt, category=category)


SOURCE = Source(
    name="alert",
    title="ALERT",
    holds="prompts",
    licence="CC BY-NC-SA 4.0",
    paper="2404.08676",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("Babelscape/ALERT", "test", config="alert"),
)
