"""The metrics of a comparison: what each is called, which direction is better, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CAPABILITY = "capability"
_TASK = "capability."


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `measure` is its name in `paired_gain`, and `rate` says that it is written in per cent."""

    name: str
    measure: str
    title: str
    better: Literal["high", "low"]
    rate: bool = True

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.better == "high" else -1


MEASURED: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("safety", "safety", "Global safety", "high"),
        Metric("safety_plain", "safety.plain", "Plain safety", "high"),
        Metric("safety_adversarial", "safety.adversarial", "Adversarial safety", "high"),
        Metric("task", "task", "The task's own rate", "high"),
        Metric("over_refusal", "over_refusal", "Over-refusal", "low"),
        Metric("toxicity_plain", "toxicity.plain", "Plain toxicity", "low", rate=False),
        Metric("toxicity_adversarial", "toxicity.adversarial", "Adversarial toxicity", "low", rate=False),
    )
}
"""By their keys in a gate file; the capability tasks stand beside them."""


def task_metric(task: str) -> str:
    """The metric's name of a capability task."""
    return _TASK + task


def metric(name: str) -> Metric:
    """The metric of that name."""
    if name in MEASURED:
        return MEASURED[name]
    title = "Capability" if name == CAPABILITY else name.removeprefix(_TASK)
    return Metric(name, name, title, "high", rate=False)
