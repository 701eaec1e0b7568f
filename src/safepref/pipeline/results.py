"""results.json: scores of the base, of each method, and of the recommended point. No times stand in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safepref.evaluation import main_rate
from safepref.tradeoff.choose import Point, recommend

if TYPE_CHECKING:
    from safepref.pipeline.job import Job

SCHEMA = 1


def assemble(job: Job) -> dict[str, Any]:
    """The contract's results.json; the recommended point is scored on the report split if it was not yet."""
    recipe = job.recipe
    methods: dict[str, Any] = {}
    points: list[Point] = []
    for method in job.methods:
        choose: dict[str, Any] = {}
        for value in recipe.evaluation.strengths if recipe.evaluation.choose else ():
            choose[f"{value:g}"] = scores = job.evaluate(f"{method.name}@{value:g}", method, value, "choose")
            points.append(Point(method.name, value, scores))
        methods[method.name] = {
            "scores": job.evaluate(method.name, method, 1.0, "report"),
            "choose": choose,
            "training": job.read_training(method),
        }
    return {
        "schema": SCHEMA,
        "model": recipe.model.id,
        "base": job.evaluate("base", None, 1.0, "report"),
        "methods": methods,
        "recommended": _recommended(job, points),
        "contamination": job.contamination(),
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


def _recommended(job: Job, points: list[Point]) -> dict[str, Any]:
    limits = job.recipe.report
    if not points:
        return {"method": None, "strength": None, "scores": None, "why": "no strengths were tried"}
    choice = recommend(points, floor=job.recipe.floor, ceiling=limits.over_refusal_ceiling)
    if choice.point is None:
        return {"method": None, "strength": None, "scores": None, "why": choice.why}
    method = next(m for m in job.methods if m.name == choice.point.method)
    value = choice.point.strength
    name = method.name if value == 1 else f"{method.name}@{value:g}"
    return {
        "method": method.name,
        "strength": value,
        "scores": job.evaluate(name, method, value, "report"),
        "why": choice.why,
    }
