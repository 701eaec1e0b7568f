"""HH-RLHF, the harmless half: whole dialogues, of which people preferred one (arXiv 2204.05862)."""

from __future__ import annotations

from safepref.data.records import Pair
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_pair


def _parse(row: Row, where: Where) -> Pair:
    """The prompt is what both dialogues begin with; a few that part before their last turn are bad rows."""
    chosen, rejected = column(row, where, "chosen"), column(row, where, "rejected")
    return make_pair(where, SOURCE.name, None, chosen, rejected, kind="preference")


SOURCE = Source(
    name="hh-rlhf",
    title="Anthropic HH-RLHF (harmless-base)",
    holds="pairs",
    licence="MIT",
    paper="2204.05862",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("Anthropic/hh-rlhf", "train", data_dir="harmless-base"),
)
