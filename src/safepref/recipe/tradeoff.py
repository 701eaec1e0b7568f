"""What is recommended, and the points that are tried for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from safepref.recipe.base import Amount, Count, Section, Share


class ReportSection(Section):
    """The floor and the limits of the recommendation."""

    safety_floor: Share = 0.9
    """The safety interval's lower end on the choose split must reach it."""
    task_floor: Share = 0.7
    """The same for the rate of another task, in the place of safety's."""
    over_refusal_ceiling: Share = 0.5
    capability_drop: Share | None = None
    """Most that mean capability may lie below the base's on the choose split, 0..1; null for no limit. With
    one, the base is scored there too."""
    mathematics_drop: Share | None = None
    """The same for the arithmetic task."""
    chat_drop: Share | None = None
    """The same for the mean over the tasks asked in the chat template (`evaluation.choose_chat`)."""
    ordinary_ceiling: Share | None = None
    """Most ordinary requests not answered on the choose split (`evaluation.choose_ordinary`); null for no
    limit."""


class Merge(Section):
    """Adapters of several methods combined into one by PEFT, which is then treated like a method."""

    methods: Annotated[tuple[str, ...], Field(min_length=2)]
    """Trained methods of this run."""
    how: Literal[
        "linear",
        "cat",
        "svd",
        "ties",
        "ties_svd",
        "dare_linear",
        "dare_linear_svd",
        "dare_ties",
        "dare_ties_svd",
    ] = "linear"
    """Of the factors A and B, or with _svd of their products at the old rank; `cat` is the exact sum."""
    weights: tuple[Amount, ...] | None = None
    """Share of each method; together 1 for an average. Null is equal shares."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the entries that TIES and DARE keep."""
    seed: int = 0
    """Of DARE's draws."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")] | None = None
    """Null is made of the rest: `dpo+nca.ties`."""

    @property
    def title(self) -> str:
        """The name under which it is a method, in results and as `adapters/NAME`."""
        return self.name or f"{'+'.join(self.methods)}.{self.how}"


class Reference(Section):
    """The worst of each axis, from which hypervolume is counted."""

    safety: Share = 0.0
    over_refusal: Share = 1.0
    capability: Share = 0.0
    mathematics: Share = 0.0


class TradeoffSection(Section):
    """Points tried after training, without training: strengths by groups of layers, and merged adapters."""

    groups: Count = 0
    """Groups of consecutive decoder layers, input side first, each with a strength of its own; 0 for none."""
    group_points: tuple[tuple[Share, ...], ...] | None = None
    """Strengths by group to try; null tries each group alone at `group_levels`, the others at 1."""
    group_levels: tuple[Share, ...] = (0.5,)
    merges: tuple[Merge, ...] = ()
    reference: Reference = Reference()

    @field_validator("group_points")
    @classmethod
    def _as_many_as_groups(cls, points: Any, info: ValidationInfo) -> Any:
        groups = info.data.get("groups", 0)
        for point in points or ():
            if len(point) != groups:
                raise ValueError(f"{list(point)} has {len(point)} numbers for tradeoff.groups={groups}")
        return points

    @field_validator("merges")
    @classmethod
    def _named_once(cls, merges: tuple[Merge, ...]) -> tuple[Merge, ...]:
        titles = [merge.title for merge in merges]
        for merge in merges:
            if merge.weights is not None and len(merge.weights) != len(merge.methods):
                raise ValueError(
                    f"{merge.title} has {len(merge.weights)} weights for {len(merge.methods)} methods"
                )
            if titles.count(merge.title) > 1:
                raise ValueError(f"{merge.title} stands twice; give one of them another name")
        return merges
