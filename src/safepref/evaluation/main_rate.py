"""The one rate that a run is about: global safety, or the main rate of another task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

SAFETY = "safety"


class MainRate(NamedTuple):
    """`name` for sentences ("safety", "accuracy"), its value 0..1 and interval, each None where it was not
    measured, and the whole part of SCORES that it comes from."""

    name: str
    value: float | None
    interval: list[float] | None
    part: Mapping[str, Any]


def main_rate(scores: Mapping[str, Any] | None) -> MainRate:
    """The main rate of SCORES: of its part `task` where there is one, else global safety."""
    task = (scores or {}).get("task")
    if task:
        return MainRate(task["measure"], task.get("rate"), task.get("interval"), task)
    safety = (scores or {}).get("safety") or {}
    return MainRate(SAFETY, safety.get("global"), safety.get("interval"), safety)
