"""The stages that training and evaluation are made of, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from safepref.methods import Method


@dataclass(frozen=True, slots=True)
class Reinforced:
    """What reinforcement learning trains, treated as a method once it is there."""

    name: str = "grpo"
    title: str = "GRPO"


GRPO = Reinforced()
Trained: TypeAlias = Method | Reinforced
"""What has an adapter, scores and a place in the report under its name."""


@dataclass(frozen=True, slots=True)
class Task:
    """A stage that training and evaluation are made of."""

    name: str
    """As the manifest has it."""
    point: str
    """What is trained or scored: base, METHOD or METHOD@STRENGTH."""
    method: str | None
    value: float
    """The strength."""
    side: str | None
    """The split that is asked; null trains."""
    after: str | None = None
    """The method from whose adapter a training starts."""

    @property
    def needs(self) -> str | None:
        """The stage that has to be done before."""
        method = self.after if self.side is None else self.method
        return None if method is None else f"train:{method}"


def tasks_of(
    methods: Sequence[Trained],
    strengths: Sequence[float],
    *,
    evaluate: bool = True,
    start: str | None = None,
) -> list[Task]:
    """The base on the report split; each method trained, reported at 1, and chosen at every strength.

    `start` is the method from which reinforcement learning starts, if from one.
    """
    found = [_scored("base", None, 1.0, "report")] if evaluate else []
    for name in (method.name for method in methods):
        found.append(Task(f"train:{name}", name, name, 1.0, None, start if name == GRPO.name else None))
        if evaluate:
            found.append(_scored(name, name, 1.0, "report"))
            found += [_scored(f"{name}@{value:g}", name, value, "choose") for value in strengths]
    return found


def _scored(point: str, method: str | None, value: float, side: str) -> Task:
    return Task(f"evaluate:{side}:{point}", point, method, value, side)
