"""How a task's shipped set and the user's files become the three sides of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from safepref.data.records import Prompt, Split
from safepref.data.splits import FRACTIONS, split_by_template
from safepref.errors import InputError
from safepref.recipe import SHIPPED, STARTER, Recipe, as_names
from safepref.tasks.base import Sides

TRAINED: Mapping[Split, float] = {"train": 0.85, "choose": 0.15}
"""A file that serves training alone."""


def deal(
    recipe: Recipe, shipped: Mapping[str, Callable[[], Sides]], read: Callable[[str], list[Prompt]]
) -> Sides:
    """The task's prompts by side.

    `data.prompts` names what is trained on and chosen by: shipped sets, which have their own sides, and
    files, which are dealt out by template. What `evaluation.prompts` names is reported on, a file that stands
    in both by its own part; where it names nothing, all of `data.prompts` is dealt out over three sides.

    Args:
        recipe: the run's.
        shipped: makes the sides of each shipped set that the task has, by name.
        read: reads a file's prompts.

    Raises:
        InputError: a shipped set that the task does not have, or a name that is no file.
    """
    check_files(recipe)
    trained, evaluated = as_names(recipe.data.prompts), recipe.evaluation.prompts
    sides: Sides = {"train": [], "choose": [], "report": []}
    shared: list[str] = []
    alone: list[str] = []
    for name in trained:
        if name in SHIPPED:
            for side, prompts in _shipped(recipe, shipped, name)().items():
                free = side == "report" and evaluated not in (None, STARTER)
                place: Split = "train" if free else side
                sides[place] += [replace(prompt, split=place) for prompt in prompts]
        elif evaluated is None or _same(name, evaluated):
            shared.append(name)
        else:
            alone.append(name)
    for names, fractions in ((shared, FRACTIONS), (alone, TRAINED)):
        found = [prompt for name in names for prompt in read(name)]
        for side, prompts in (split_by_template(found, fractions, recipe.seed) if found else {}).items():
            sides[side] += prompts
    if evaluated == STARTER and STARTER not in trained:
        sides["report"] += _shipped(recipe, shipped, STARTER)()["report"]
    elif evaluated is not None and evaluated not in SHIPPED and not shared:
        found = [replace(p, split="report") for p in read(evaluated)]
        sides["report"] += found
    # A text that two sets have stands on one side, the one that is asked rather than the one that is learned.
    seen: set[str] = set()
    for side in ("report", "choose", "train"):
        once = {prompt.id: prompt for prompt in sides[side] if prompt.id not in seen}
        sides[side] = list(once.values())
        seen |= set(once)
    return sides


def _shipped(recipe: Recipe, shipped: Mapping[str, Callable[[], Sides]], name: str) -> Callable[[], Sides]:
    if name not in shipped:
        known = " or ".join((*shipped, "a file"))
        raise InputError(f"data.prompts: task {recipe.task} has no set {name!r}; give {known}")
    return shipped[name]


def _same(first: str, second: str) -> bool:
    return first == second or Path(first).resolve() == Path(second).resolve()


def check_files(recipe: Recipe) -> None:
    """Whether all that a recipe names for its task is there.

    Raises:
        InputError: a name that is neither a shipped set's nor a file.
    """
    named = [("data", name) for name in as_names(recipe.data.prompts)]
    named += [("evaluation", recipe.evaluation.prompts)] if recipe.evaluation.prompts is not None else []
    for section, name in named:
        if name not in SHIPPED and not Path(name).is_file():
            raise InputError(
                f"{section}.prompts: {name}: no such file; task {recipe.task} reads files, or {STARTER}"
            )
