"""What sets one task apart from another: its data, its judges, and what its rate is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from safepref.data.records import Prompt, Split
from safepref.evaluation import EvaluationSuite, TaskSuite
from safepref.pairs.build import Builder, Built
from safepref.recipe import DataSection, Recipe

Sides: TypeAlias = dict[Split, list[Prompt]]
"""Prompts to train on, to choose by and to report on, disjoint by template."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One task."""

    name: str
    """In the recipe, and in SCORES."""
    title: str
    """Of the report."""
    measure: str
    """What the share of good answers is called."""
    counted: Literal["harmful", "task"]
    """The key of the recipe's `data` that says how many of its own pairs are trained on."""
    pairs: Callable[[Builder, Sequence[Prompt], Built], None]
    """Adds its own pairs, made from its training prompts, and counts them under `counted`."""
    sides: Callable[[Recipe, list[str]], Sides] | None = None
    """Its prompts; what was left out in reading is added to the list of notes. None: harmful requests, plain
    and attacked, as pipeline/prompts.py reads them from sets and files."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """The judges that `select` and `report` stand for in its recipes."""
    takes: tuple[str, ...] = ()
    """What begins the names of judges that tell its good answers from bad ones; none for safety, whose judges
    are all the others."""
    more: Callable[..., Mapping[str, Any]] | None = None
    """Further scores of its sample rows; see `evaluation.suites.TaskSuite`."""
    adversarial: bool = False
    """Attacks are put round its prompts, and toxicity is measured beside it."""

    def suite(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """The part of an `EvaluationSuite` that asks the task's prompts."""
        if self.sides is None:
            return {"safety": tuple(prompts)}
        return {"task": TaskSuite(self.name, self.measure, tuple(prompts), self.more)}

    def asked(self, suite: EvaluationSuite) -> tuple[Prompt, ...]:
        """The task's prompts in a suite that `suite` made."""
        return suite.safety if suite.task is None else suite.task.prompts

    def wanted(self, data: DataSection) -> int:
        """How many of its own pairs a recipe asks for."""
        return int(getattr(data, self.counted))
