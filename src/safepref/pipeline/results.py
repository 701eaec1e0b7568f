"""results.json: scores of the base, of each method, and of the recommended point. No times stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safepref.evaluation import main_rate
from safepref.pipeline.tasks import scores_base, swept_strengths
from safepref.strength import point_name, strength_json, strength_text
from safepref.tradeoff.choose import Limits, recommend
from safepref.tradeoff.front import Point, pareto
from safepref.tradeoff.hypervolume import axes_of, hypervolumes

if TYPE_CHECKING:
    from safepref.pipeline.job import Job

SCHEMA = 1


def assemble(job: Job) -> dict[str, Any]:
    """The contract's results.json; the recommended point is scored on the report split if it was not yet."""
    recipe = job.recipe
    methods: dict[str, Any] = {}
    points: list[Point] = []
    for name in (*(m.name for m in job.methods), *(merge.title for merge in recipe.tradeoff.merges)):
        choose: dict[str, Any] = {}
        for value in swept_strengths(recipe):
            text = strength_text(value)
            choose[text] = scores = job.evaluate(f"{name}@{text}", name, value, "choose")
            points.append(Point(name, value, scores))
        methods[name] = {
            "scores": job.evaluate(name, name, 1.0, "report"),
            "choose": choose,
            "training": job.read_training(name),
        }
    base = job.evaluate("base", None, 1.0, "choose") if scores_base(recipe) else None
    return {
        "schema": SCHEMA,
        "model": recipe.model.id,
        "base": job.evaluate("base", None, 1.0, "report"),
        "methods": methods,
        "recommended": _recommended(job, points, base),
        "tradeoff": tradeoff_of(points, recipe.tradeoff.reference.model_dump(), base),
        "contamination": job.contamination(),
    }


def tradeoff_of(
    points: Sequence[Point], reference: Mapping[str, float], base: dict[str, Any] | None
) -> dict[str, Any]:
    """The front over all points of the choose split and the hypervolume of each method's.

    Returns:
        `front`: `{"method", "strength"}` of each point on it; `hypervolume` by method; `reference`: the worst
        of each axis that the volume is counted over; `base`: its SCORES on the choose split, or null.
    """
    axes = axes_of(points)
    return {
        "front": [{"method": p.method, "strength": strength_json(p.strength)} for p in pareto(points)],
        "hypervolume": hypervolumes(points, reference),
        "reference": {axis: reference[axis] for axis in axes},
        "base": base,
    }


def in_a_line(scores: dict[str, Any]) -> str:
    """The figures of an evaluation that belong together, for a person who watches the run."""
    refused, tasks = (scores[part] or {} for part in ("over_refusal", "capability"))
    main = main_rate(scores)
    capability = tasks.get("mean")
    unread = sum((refused.get("unread") or {}).values())
    figures = {
        main.name: _percent(main.value),
        "over-refusal": _percent(refused.get("rate")) + (f" ({unread} unscored)" if unread else ""),
        "capability": "not measured" if capability is None else f"{capability:.3f}",
    }
    modes = ((scores.get("toxicity") or {}).get("unread") or {}).values()
    if toxic := sum(sum(mode.values()) for mode in modes):
        figures["toxicity"] = f"unscored of {toxic} continuations in other languages"
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _percent(rate: float | None) -> str:
    return "not measured" if rate is None else f"{100 * rate:.1f} %"


def _recommended(job: Job, points: list[Point], base: dict[str, Any] | None) -> dict[str, Any]:
    asked = job.recipe.report
    if not points:
        return {"method": None, "strength": None, "scores": None, "why": "no strengths were tried"}
    limits = Limits(
        job.recipe.floor,
        asked.over_refusal_ceiling,
        asked.capability_drop,
        asked.mathematics_drop,
        asked.chat_drop,
        asked.ordinary_ceiling,
    )
    choice = recommend(points, limits, base)
    if choice.point is None:
        return {"method": None, "strength": None, "scores": None, "why": choice.why}
    method, value = choice.point.method, choice.point.strength
    return {
        "method": method,
        "strength": strength_json(value),
        "scores": job.evaluate(point_name(method, value), method, value, "report"),
        "why": choice.why,
    }
