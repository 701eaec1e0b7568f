"""XSTest: safe look-alikes and unsafe contrasts, for over-refusal (arXiv 2308.01263). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt


def _parse(row: Row, where: Where) -> Prompt:
    """The label decides; the first release has none, and calls its unsafe types `contrast_…`."""
    kind = column(row, where, "type")
    label = row.get("label") or ("unsafe" if str(kind).startswith("contrast") else "safe")
    if label not in ("safe", "unsafe"):
        raise RowError(where, "label", "unknown", "safe or unsafe", label)
    prompt = column(row, where, "prompt")
    return make_prompt(
        where, SOURCE.name, prompt, kind="harmless" if label == "safe" else "harmful", category=kind
    )


SOURCE = Source(
    name="xstest",
    title="XSTest",
    holds="prompts",
    licence="CC BY 4.0",
    paper="2308.01263",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("walledai/XSTest", "test"),
)
