"""OR-Bench: harmless prompts that look harmful, and toxic ones, over 10 categories (arXiv 2405.20947).

Evaluation only. The three files have the same columns, so each is a set of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from safepref.data.records import Prompt, PromptKind
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Source, column, make_prompt
from safepref.data.sources.categories import mapped


def _parser(name: str, kind: PromptKind) -> Callable[[Row, Where], Prompt]:
    def parse(row: Row, where: Where) -> Prompt:
        prompt, category = column(row, where, "prompt"), mapped("or-bench", row.get("category"))
        return make_prompt(where, name, prompt, kind=kind, category=category)

    return parse


def _source(name: str, title: str, kind: PromptKind, config: str) -> Source:
    return Source(
        name=name,
        title=title,
        holds="prompts",
        licence="CC BY 4.0",
        paper="2405.20947",
        fit_allowed=False,
        parse=_parser(name, kind),
        hub=Hub("bench-llm/or-bench", "train", config=config),
    )


SOURCE = _source("or-bench", "OR-Bench (hard 1K)", "harmless", "or-bench-hard-1k")
LARGE = _source("or-bench-80k", "OR-Bench (80K)", "harmless", "or-bench-80k")
TOXIC = _source("or-bench-toxic", "OR-Bench (toxic)", "harmful", "or-bench-toxic")
