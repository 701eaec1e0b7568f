"""What a run may be about: safety, or another task with its own data and judges.

All else is shared: on-policy mixtures, training, evaluation beside the task, strengths, choice and report. A
task is one file with a `TaskKind` and one line here.
"""

from __future__ import annotations

import difflib
import re

from safepref.errors import InputError
from safepref.recipe import Recipe
from safepref.tasks.base import TaskKind
from safepref.tasks.moderation import MODERATION
from safepref.tasks.safety import SAFETY
from safepref.tasks.support import SUPPORT

TASKS: dict[str, TaskKind] = {task.name: task for task in (SAFETY, MODERATION, SUPPORT)}
"""By the name that the recipe's key `task` takes."""


def task_of(recipe: Recipe) -> TaskKind:
    """The recipe's task.

    Raises:
        InputError: an unknown one; the nearest is named.
    """
    if recipe.task not in TASKS:
        near = difflib.get_close_matches(recipe.task, TASKS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"task {recipe.task!r} is not known; {hint}tasks: {', '.join(TASKS)}")
    return TASKS[recipe.task]


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the task's own judges where it names `select` and `report`; equal for safety."""
    own = task_of(recipe).judges
    named = {role: getattr(recipe.judges, role) for role in ("select", "report", "vet")}
    judges = recipe.judges.model_copy(update={role: own.get(name, name) for role, name in named.items()})
    return recipe if judges == recipe.judges else recipe.model_copy(update={"judges": judges})


def check_judges(recipe: Recipe) -> None:
    """Whether the judges give the verdicts of the task: good or bad, or harmful or harmless for safety.

    Raises:
        InputError: one that gives the others'; the key and the judges to take.
    """
    task = task_of(recipe)
    every = [prefix for kind in TASKS.values() for prefix in kind.takes]
    for role in ("select", "report", "vet"):
        name = getattr(recipe.judges, role)
        parts = [] if name is None else re.split(r"[:,]", name)
        theirs = [part for part in parts if part.startswith(tuple(every))]
        fits = any(part.startswith(task.takes) for part in parts) if task.takes else not theirs
        if name is not None and not fits:
            known = " or ".join(task.judges.values()) or "select or report"
            raise InputError(f"judges.{role}: {name} does not judge what task {task.name} asks; give {known}")


__all__ = ["TASKS", "TaskKind", "check_judges", "settled", "task_of"]
