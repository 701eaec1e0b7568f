"""JailbreakBench: 100 harmful behaviours and 100 harmless twins over 10 categories (arXiv 2404.01318).

Evaluation only.
"""

from __future__ import annotations

from collections.abc import Callable

from safepref.data.records import Prompt, PromptKind
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Source, make_prompt
from safepref.data.sources.categories import mapped


def _parser(name: str, kind: PromptKind) -> Callable[[Row, Where], Prompt]:
    """Both files have the same columns: Index, Goal, Target, Behavior, Category, Source."""

    def parse(row: Row, where: Where) -> Prompt:
        goal = row.get("Goal") or row.get("prompt")
        if goal is None:
            raise RowError(where, "Goal", "missing", "give the set in its own columns (Goal, Category, …)")
        category = mapped("jailbreakbench", row.get("Category"))
        return make_prompt(where, name, goal, kind=kind, category=category)

    return parse


def _source(name: str, title: str, kind: PromptKind, split: str) -> Source:
    return Source(
        name=name,
        title=title,
        holds="prompts",
        licence="MIT",
        paper="2404.01318",
        fit_allowed=False,
        parse=_parser(name, kind),
        hub=Hub("JailbreakBench/JBB-Behaviors", split, config="behaviors"),
    )


SOURCE = _source("jailbreakbench", "JailbreakBench (harmful behaviours)", "harmful", "harmful")
BENIGN = _source("jailbreakbench-benign", "JailbreakBench (benign behaviours)", "harmless", "benign")
