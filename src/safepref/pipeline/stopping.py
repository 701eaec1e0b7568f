"""Scores weights while they are trained: a small suite of the choose split, by the select judge.

Like every choice it reads the choose split alone; the report split stays unseen until the end.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from safepref.data.splits import balanced_sample
from safepref.evaluation import EvaluationSuite, Policy, evaluate
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.hardware import release_memory
from safepref.methods import Method
from safepref.pipeline.prompts import Suite, apart_by_attack
from safepref.progress import Stage
from safepref.recipe import StoppingSection
from safepref.store import sha256_json
from safepref.tasks import TaskKind
from safepref.tasks.safety import SAFETY
from safepref.tradeoff.front import Point
from safepref.training.stopping import Judged, JudgedPoint

if TYPE_CHECKING:
    from safepref.pipeline.job import Job

DRAWS = 100
"""Bootstrap draws: the intervals are not read."""


def judged_of(job: Job, method: Method, progress: Stage) -> Judged | None:
    """Who scores a method's weights in training, and how; None where the recipe asks for no stopping."""
    section, limits = job.recipe.training.stopping, job.recipe.report
    if section is None:
        return None
    suite = small_suite(job.recipe.model.system, job.recipe.seed, job.prompts.choose, section, job.task)

    def score(model: Any, step: int) -> JudgedPoint:
        loaded = replace(job.loaded, model=model)
        engine = LocalEngine(
            loaded, batch_size=job.recipe.generation.batch_size, system=job.recipe.model.system
        )
        scores = evaluate(
            Policy(f"{job.fingerprint}:{method.name}:step {step}", engine, model, loaded.tokenizer),
            suite,
            job.judges.choosing(),
            samples_dir=job.out / "work" / "stopping" / method.name / f"{step}",
            progress=progress,
        )
        release_memory()
        point = Point(method.name, 1.0, scores)
        return JudgedPoint(step, point.safety, point.over_refusal, point.capability)

    return Judged(
        score=score,
        every=section.every,
        patience=section.patience,
        floor=job.recipe.floor if section.floor is None else section.floor,
        ceiling=limits.over_refusal_ceiling if section.ceiling is None else section.ceiling,
        asked=sha256_json(
            [
                job.judges.select.card(),
                job.judges.refusal.card(),
                [prompt.to_json() for prompt in (*job.task.asked(suite), *suite.benign)],
                [row for task in suite.capability for row in task.rows],
                asdict(suite.answer),
            ]
        ),
    )


def small_suite(
    system: str | None, seed: int, choose: Suite, section: StoppingSection, task: TaskKind = SAFETY
) -> EvaluationSuite:
    """Of the choose split `section.prompts` plain and attacked requests (the families alike), look-alikes and
    arithmetic questions each."""
    plain, families = apart_by_attack(choose.safety)
    each = max(1, section.prompts // max(1, len(families)))
    attacked = [p for family in families.values() for p in balanced_sample(family, each, seed=seed)]
    return EvaluationSuite(
        **task.suite([*balanced_sample(plain, section.prompts, seed=seed), *attacked]),
        benign=tuple(balanced_sample(choose.benign, section.prompts, seed=seed)),
        capability=tuple(replace(task, rows=task.rows[: section.prompts]) for task in choose.capability),
        answer=Sampling(section.answer_tokens),
        system=system,
        seed=seed,
        draws=DRAWS,
    )


def training_notes(method: Method, summary: dict[str, Any]) -> list[str]:
    """What a person who watches the run should know of a method's training, a line each."""
    lines = [str(summary["backend"])]
    if summary["weights_ignored"]:
        lines.append(f"{method.title} sorts its batch, so that its loss takes no weights of pairs")
    if lowered := summary.get("lowered"):
        lines.append(f"the rate was lowered to {lowered['factor']:.3g} of it: chosen answers fell")
    if stopped := summary.get("stopped"):
        why = "chosen answers fell" if stopped["by"] == "displacement" else "no better weights were found"
        lines.append(f"stopped at step {stopped['step']} of {summary['planned_steps']}: {why}")
    kept = summary.get("selection", {}).get("kept")
    if kept is None:  # nothing was judged before training ended
        kept = (stopped or {}).get("kept")
    if kept is not None:
        lines.append(f"ends with the weights of step {kept}")
    return lines
