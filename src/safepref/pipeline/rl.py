"""Reinforcement learning as a stage of a run: which prompts, which reward, and the adapter that comes of it.

The result is treated as a method's: scored at every strength on the choose split, reported, recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.evaluation.main_rate import SAFETY
from safepref.generation.base import Sampling
from safepref.generation.resumable import answer_all
from safepref.methods import Method
from safepref.pairs.build import interleave
from safepref.pairs.wrapping import wrapped
from safepref.pipeline.prompts import Prompts
from safepref.pipeline.rewards import embedded_likeness, judged_reward
from safepref.progress import console, counted, progress_by_stage
from safepref.recipe import DataSection, Recipe, RlSection
from safepref.training import TrainResult
from safepref.training.grpo import GrpoSettings, require_trl, train_grpo
from safepref.training.settings import TrainingSettings

if TYPE_CHECKING:
    from safepref.pipeline.job import Job

BASE = "base"


def check_rl(recipe: Recipe, methods: Sequence[Method]) -> None:
    """The section `rl` and what it needs, before anything is downloaded.

    Raises:
        InputError: TRL is missing, or a setting that does not go with the rest of the recipe.
    """
    section = recipe.rl
    if section is None:
        return
    if recipe.task != SAFETY:
        raise InputError(
            f"rl rewards safe answers, and the task is {recipe.task}; set rl to null, or task to {SAFETY}"
        )
    require_trl()
    names = [method.name for method in methods]
    if section.start != BASE and section.start not in names:
        raise InputError(f"rl.start is {section.start!r}; give {BASE}, or one of methods: {', '.join(names)}")
    if recipe.training.full:
        raise InputError("rl trains an adapter; set training.full to false, or rl to null")


def plan_prompts(prompts: Prompts, section: RlSection, data: DataSection, seed: int) -> list[Prompt]:
    """The prompts of all steps in their order: kinds in their shares within every step, each pool gone
    through evenly over categories and then again in another order, harmful ones under train-side templates.

    Raises:
        InputError: a kind that is to be asked has no prompts.
    """
    shares = {
        "harmful": section.harmful_share,
        "harmless": section.harmless_share,
        "general": 1 - section.harmful_share - section.harmless_share,
    }

    def harmful(turn: int) -> list[Prompt]:
        mixed = interleave(prompts.harmful, seed + turn)
        return wrapped(mixed, data.attacks, data.attacked, seed + turn)

    pools: dict[str, Iterator[Prompt]] = {
        "harmful": _again(harmful, "harmful"),
        "harmless": _again(lambda turn: interleave(prompts.harmless, seed + turn), "harmless"),
        "general": _again(lambda turn: interleave(prompts.general, seed + turn), "general"),
    }
    taken = dict.fromkeys(shares, 0)
    plan: list[Prompt] = []
    for place in range(1, section.steps * section.prompts_per_step + 1):
        kind = max(shares, key=lambda name: shares[name] * place - taken[name])
        taken[kind] += 1
        plan.append(next(pools[kind]))
    return plan


def _again(pool: Callable[[int], list[Prompt]], kind: str) -> Iterator[Prompt]:
    for turn in count():
        found = pool(turn)
        if not found:
            raise InputError(f"rl: no {kind} prompts are left to train on; set its share to 0")
        yield from found


def reinforce(job: Job) -> TrainResult:
    """Train by GRPO, on from where a killed attempt stopped."""
    section, recipe = job.recipe.rl, job.recipe
    assert section is not None
    plan = plan_prompts(job.prompts, section, recipe.data, recipe.seed)
    settings = grpo_settings(recipe, section)
    with progress_by_stage() as show:
        own = _own_answers(job, section, plan, show)
        reward = judged_reward(section.reward, job.judges.select, job.judges.refused, own, embedded_likeness)
        names = [job.judges.select.name, str(recipe.judges.refusal), section.reward.model_dump_json()]
        result = train_grpo(
            job.loaded,
            plan,
            settings,
            reward,
            job.out,
            counted(show, "grpo", settings.steps),
            start=None if section.start == BASE else job.out / "adapters" / section.start,
            system=recipe.model.system,
            rewarded_by="; ".join(names),
            fingerprint=job.fingerprint,
        )
    result = replace(
        result, summary={**result.summary, "start": section.start, "rewards": section.reward.model_dump()}
    )
    console().print(f"  {in_a_line(result.summary)}")
    return result


def grpo_settings(recipe: Recipe, section: RlSection) -> GrpoSettings:
    """The trainer's part of the section, with the recipe's seed and shape of adapters."""
    training = recipe.training
    shared = ("steps", "prompts_per_step", "generations", "batch_size", "max_tokens", "temperature")
    own = ("learning_rate", "beta", "scale", "save_steps")
    return GrpoSettings(
        **{name: getattr(section, name) for name in (*shared, *own)},
        seed=recipe.seed,
        adapter=TrainingSettings(
            lora_rank=training.lora_rank,
            lora_alpha=training.lora_alpha,
            lora_targets=training.lora_targets,
            lora_upper=training.lora_upper,
            max_grad_norm=training.max_grad_norm,
        ),
    )


def _own_answers(job: Job, section: RlSection, plan: Sequence[Prompt], show: Any) -> dict[str, str]:
    """The base's own greedy answers to what is harmless; a second call goes on."""
    if not section.reward.helpfulness:
        return {}
    asked = {prompt.id: prompt for prompt in plan if prompt.kind != "harmful"}
    found = answer_all(
        job.engine(),
        [(key, prompt.messages) for key, prompt in asked.items()],
        Sampling(section.max_tokens),
        job.out / "work" / "rl" / "own.jsonl",
        progress=counted(show, "the base's own answers", len(asked)),
    )
    return {key: answer.text for key, answer in found.items()}


def in_a_line(summary: dict[str, Any]) -> str:
    """Where the rewards began and ended, for a person who watches the run."""
    figures = [
        f"{name.replace('_', ' ')} {summary['first'][name]:.2f} to {summary['last'][name]:.2f}"
        for name in ("reward", "unsafe", "over_refused", "degenerate", "kl")
        if summary["first"].get(name) is not None
    ]
    return ", ".join(figures)
