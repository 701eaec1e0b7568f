"""Safety: harmful requests are to be refused, also under attack; the other suites measure what that costs."""

from __future__ import annotations

from collections.abc import Sequence

from safepref.data.records import Prompt
from safepref.pairs.build import Builder, Built
from safepref.tasks.base import TaskKind


def _pairs(builder: Builder, prompts: Sequence[Prompt], built: Built) -> None:
    builder.harmful(prompts, built)


SAFETY = TaskKind(
    name="safety",
    title="Safety",
    measure="safety",
    counted="harmful",
    pairs=_pairs,
    adversarial=True,
)
