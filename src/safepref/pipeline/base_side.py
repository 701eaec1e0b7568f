"""What a run's base says itself, which every point is held against: made once and kept in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safepref.evaluation import (
    ChatTask,
    Policy,
    base_answers,
    base_families,
    narrowed,
    read_base_answers,
)
from safepref.generation.base import Sampling
from safepref.progress import console, progress_by_stage
from safepref.store import read_json

if TYPE_CHECKING:
    from safepref.pipeline.job import Job
    from safepref.pipeline.prompts import Suite

FOLDER = ("work", "base")


def ask_base(job: Job) -> None:
    """The base's own answers to the ordinary requests of both sides, and which arithmetic it gets right."""
    sides = {"report": job.prompts.report}
    if job.recipe.evaluation.choose:
        sides["choose"] = job.prompts.choose
    asked = {side: suite.ordinary for side, suite in sides.items() if suite.ordinary}
    sums = any(task.families for suite in sides.values() for task in suite.chat)
    if not asked and not sums:
        return
    with job.manifest.stage("base", "Base: its own answers, which the others are held against") as todo:
        if not todo:
            return
        base = Policy(f"{job.fingerprint}:base", job.engine(), job.loaded.model, job.loaded.tokenizer)
        with progress_by_stage() as show:
            for side, prompts in asked.items():
                base_answers(
                    base,
                    prompts,
                    Sampling(job.recipe.evaluation.answer_tokens),
                    _answers(job.out, side),
                    system=job.recipe.model.system,
                    progress=show,
                )
            found = base_families(base, _families(job.out), progress=show) if sums else {"selected": []}
        if sums:
            console().print(f"  arithmetic that can show a change: {', '.join(found['selected']) or 'none'}")


def held_against(job: Job, suite: Suite, side: str) -> dict[str, Any]:
    """The parts of an `EvaluationSuite` that take something of the base, on one side."""
    place = _answers(job.out, side)
    return {
        "ordinary": tuple(suite.ordinary),
        "base_answers": read_base_answers(place) if place.exists() else None,
        "chat": _chat(job, suite, side),
        "nats": tuple(suite.nats),
    }


def _chat(job: Job, suite: Suite, side: str) -> tuple[ChatTask, ...]:
    """Questions in the chat; of arithmetic, the families that the base decided on."""
    asked, place = job.recipe.evaluation, _families(job.out)
    families = read_json(place)["selected"] if place.exists() else []
    rows = asked.chat_rows if side == "report" else asked.choose_chat
    known = [number for number in (rows, asked.limit) if number is not None]
    return tuple(narrowed(task, families, min(known, default=None)) for task in suite.chat)


def _answers(out: Path, side: str) -> Path:
    return out.joinpath(*FOLDER, f"{side}.jsonl")


def _families(out: Path) -> Path:
    return out.joinpath(*FOLDER, "families.json")
