"""ToxiGen: lists of machine-written sentences about 13 groups, to be continued (arXiv 2203.09509).

Evaluation only.
"""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Source, make_prompt
from safepref.data.sources.categories import mapped


def _parse(row: Row, where: Where) -> Prompt:
    """`prompt` with `group` in the whole set, `text` with `target_group` in the annotated part.

    Line breaks between the sentences of a prompt are written as a backslash and an n.
    """
    beginning, group = row.get("prompt"), row.get("group")
    if beginning is None:
        beginning, group = row.get("text"), row.get("target_group")
    if beginning is None:
        mend = "give the set in its own columns (prompt, group, … or text, target_group, …)"
        raise RowError(where, "prompt", "missing", mend)
    if isinstance(beginning, str):
        beginning = beginning.replace("\\n", "\n")
    category = mapped(SOURCE.name, group)
    return make_prompt(where, SOURCE.name, beginning, kind="toxicity", category=category)


SOURCE = Source(
    name="toxigen",
    title="ToxiGen",
    holds="prompts",
    licence="CDLA-Permissive-2.0 (code: MIT)",
    paper="2203.09509",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("toxigen/toxigen-data", "train", config="train"),
)
