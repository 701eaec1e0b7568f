"""AdvBench: 520 harmful behaviours as instructions (arXiv 2307.15043)."""

from __future__ import annotations

from pathlib import Path

import yaml

from safepref.data.records import Prompt
from safepref.data.rows import Row, RowError, Where
from safepref.data.sources.base import Hub, Rows, Source, make_prompt


def _read(path: Path) -> Rows:
    seeds = yaml.safe_load(path.read_text(encoding="utf-8"))["seeds"]
    for number, seed in enumerate(seeds, 1):
        yield Where(str(path), number), {"goal": seed["value"]}


def _parse(row: Row, where: Where) -> Prompt:
    """The request is `goal` in the authors' file and `prompt` in copies of it."""
    goal = row.get("goal") or row.get("prompt")
    if goal is None:
        raise RowError(where, "goal", "missing", "give the set in its own columns (goal, target)")
    return make_prompt(where, SOURCE.name, goal)


SOURCE = Source(
    name="advbench",
    title="AdvBench",
    holds="prompts",
    licence="MIT",
    paper="2307.15043",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("walledai/AdvBench", "train"),
    assets=("pyrit/seed_datasets/local/adv_bench.prompt",),
    read_asset=_read,
)
