"""The stages that training and evaluation are made of, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safepref.methods import Method


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

    @property
    def needs(self) -> str | None:
        """The stage that has to be done before."""
        return None if self.side is None or self.method is None else f"train:{self.method}"


def tasks_of(methods: Sequence[Method], strengths: Sequence[float], *, evaluate: bool = True) -> list[Task]:
    """The base on the report split; each method trained, reported at 1, and chosen at every strength."""
    found = [_scored("base", None, 1.0, "report")] if evaluate else []
    for name in (method.name for method in methods):
        found.append(Task(f"train:{name}", name, name, 1.0, None))
        if evaluate:
            found.append(_scored(name, name, 1.0, "report"))
            found += [_scored(f"{name}@{value:g}", name, value, "choose") for value in strengths]
    return found


def _scored(point: str, method: str | None, value: float, side: str) -> Task:
    return Task(f"evaluate:{side}:{point}", point, method, value, side)
