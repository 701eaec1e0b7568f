"""The stages that training and evaluation are made of, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from safepref.errors import InputError
from safepref.methods import METHODS, Method
from safepref.pipeline.rl import BASE
from safepref.recipe import Merge, Recipe
from safepref.strength import Strength, parse_strength, strength_text


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
    """What is trained, merged or scored: base, METHOD or METHOD@STRENGTH."""
    method: str | None
    """A method's or a merge's name; null for the base."""
    value: Strength
    """The strength."""
    side: str | None
    """The split that is asked; null trains or merges."""
    needs: tuple[str, ...] = ()
    """The stages that have to be done before."""
    merge: Merge | None = None
    """What is merged, where that is the stage."""


def swept_strengths(recipe: Recipe) -> tuple[Strength, ...]:
    """The strengths tried on the choose split: the plain ones, then those by groups of layers, each once.

    With groups and no points named, each group alone takes the levels of `tradeoff.group_levels`.
    """
    asked, part = recipe.evaluation, recipe.tradeoff
    if not asked.choose:
        return ()
    points: list[tuple[float, ...]] = list(part.group_points or ())
    if part.groups and part.group_points is None:
        points = [
            tuple(level if at == group else 1.0 for at in range(part.groups))
            for group in range(part.groups)
            for level in part.group_levels
        ]
    found = [*asked.strengths, *(parse_strength(point, "tradeoff.group_points") for point in points)]
    return tuple({strength_text(value): value for value in found}.values())


def scores_base(recipe: Recipe) -> bool:
    """Whether the base is scored on the choose split too: only where a limit is counted from it."""
    limits = recipe.report
    drops = (limits.capability_drop, limits.mathematics_drop, limits.chat_drop)
    return recipe.evaluation.choose and any(drop is not None for drop in drops)


def check_merges(recipe: Recipe, methods: Sequence[Trained]) -> None:
    """Merges are of LoRA adapters that the run trains, under names of their own.

    Raises:
        InputError: a merge of what is not trained, with a method's name, or with full training.
    """
    trained = [method.name for method in methods]
    for merge in recipe.tradeoff.merges:
        if recipe.training.full:
            raise InputError(
                f"tradeoff.merges: {merge.title} needs adapters, but training.full is true; leave one out"
            )
        missing = [name for name in merge.methods if name not in trained]
        if missing:
            raise InputError(
                f"tradeoff.merges: {merge.title} takes {missing[0]}, which is not trained; the methods are "
                f"{', '.join(trained)}"
            )
        if merge.title in (*METHODS, GRPO.name, "base"):
            raise InputError(f"tradeoff.merges: the name {merge.title} is taken; give another")


def _start(method: Trained, recipe: Recipe) -> tuple[str, ...]:
    """The stage whose adapter a training starts from, if from one."""
    rl = recipe.rl
    return (f"train:{rl.start}",) if rl is not None and method is GRPO and rl.start != BASE else ()


def tasks_of(
    methods: Sequence[Trained],
    recipe: Recipe,
    *,
    evaluate: bool = True,
) -> list[Task]:
    """The base on the report split; each method trained, reported at 1, and chosen at every strength.

    Merges come last, each after the methods that it is made of, and are scored as methods are. Without
    `evaluate` nothing is scored.
    """
    strengths, merges = swept_strengths(recipe), recipe.tradeoff.merges
    found = [_scored("base", None, 1.0, "report")] if evaluate else []
    if evaluate and scores_base(recipe):
        found.append(_scored("base", None, 1.0, "choose"))
    made = [
        Task(f"train:{method.name}", method.name, method.name, 1.0, None, _start(method, recipe))
        for method in methods
    ]
    made += [
        Task(
            f"merge:{merge.title}",
            merge.title,
            merge.title,
            1.0,
            None,
            tuple(f"train:{name}" for name in merge.methods),
            merge,
        )
        for merge in merges
    ]
    for task in made:
        found.append(task)
        if evaluate:
            found.append(_scored(task.point, task.method, 1.0, "report", task.name))
            found += [
                _scored(f"{task.point}@{strength_text(value)}", task.method, value, "choose", task.name)
                for value in strengths
            ]
    return found


def _scored(point: str, method: str | None, value: Strength, side: str, *needs: str) -> Task:
    return Task(f"evaluate:{side}:{point}", point, method, value, side, needs)
