"""Tasks on which a base is above chance: only there can a loss of ability be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STANDARD_ERRORS = 3.0
"""How far above chance a score has to lie."""


def above_chance(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks on which the policy of these sample rows is above chance by `STANDARD_ERRORS`.

    A row's chance is one by the number of its choices (of several right ones, their share). The standard
    error is that of the mean of value minus chance over the task's rows. Tasks without choices have no chance
    level and are not among them.
    """
    excess: dict[str, list[float]] = {}
    for row in rows:
        if row["suite"] == "capability" and row.get("chance") is not None:
            excess.setdefault(row["task"], []).append(float(row["value"]) - float(row["chance"]))
    return [task for task, values in excess.items() if _is_above(values)]


def _is_above(excess: Sequence[float]) -> bool:
    if len(excess) < 2:
        return False
    return float(np.mean(excess)) > STANDARD_ERRORS * float(np.std(excess, ddof=1)) / math.sqrt(len(excess))


def mean_above_chance(tasks: Mapping[str, float], above: Sequence[str]) -> float | None:
    """The mean score over those tasks, all alike; None where there are none, or one was not scored."""
    if not above or any(task not in tasks for task in above):
        return None
    return float(np.mean([tasks[task] for task in above]))
