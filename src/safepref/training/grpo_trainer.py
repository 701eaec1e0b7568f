"""TRL's GRPOTrainer with our answers, our rewards and our checkpoints. The one file that imports TRL."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from safepref.data.records import Message, Prompt
from safepref.errors import InputError
from safepref.generation.local import Sampled
from safepref.models import LoadedModel
from safepref.store import sha256_json, write_json
from safepref.training.grpo import GrpoSettings, RewardFunction, Scored
from safepref.training.trainer import STATE_FILE, save_weights

Answering = Callable[[Sequence[Sequence[Message]], Sequence[int]], Sequence[Sampled]]
"""(conversations, seeds) -> an answer to each."""

PART = "part/"
"""Stands before the reward's own parts among the trainer's figures."""
NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "truncated",
    "loss": "policy_loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""Figures of TRL's that are logged, and what they are called here."""


def make_trainer(
    *,
    policy: Any,
    loaded: LoadedModel,
    settings: GrpoSettings,
    prompts: Sequence[Prompt],
    answer: Answering,
    reward: RewardFunction,
    checkpoints: Path,
    log_file: Path,
    on_step: Callable[[], None],
) -> Any:
    """The trainer, ready to `train`. Arguments as in `train_grpo`.

    Raises:
        InputError: what TRL refuses, in its own words.
    """
    rows = [{"prompt": [dict(m) for m in p.messages], "number": at} for at, p in enumerate(prompts)]
    try:
        arguments = _arguments(checkpoints, loaded, settings)
        with warnings.catch_warnings():
            # The door for own answers may change with a release: the extra pins one.
            warnings.filterwarnings("ignore", message=".*rollout_func.*")
            return JudgedTrainer(
                log_file=log_file,
                on_step=on_step,
                model=policy,
                args=arguments,
                processing_class=loaded.tokenizer,
                train_dataset=Dataset.from_list(rows),
                reward_funcs=_rewarded(prompts, reward),
                rollout_func=_answered(settings.seed, answer),
            )
    except ValueError as error:
        raise InputError(f"rl: {' '.join(str(error).split())[:300]}") from error


def _arguments(folder: Path, loaded: LoadedModel, settings: GrpoSettings) -> Any:
    micro = settings.batch_size or settings.answers
    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        # One optimizer step for each sampling: every answer is the present policy's own.
        gradient_accumulation_steps=settings.answers // micro,
        max_steps=settings.steps,
        num_generations=settings.generations,
        max_completion_length=settings.max_tokens,
        temperature=settings.temperature,
        beta=settings.beta,
        scale_rewards=settings.scale,
        # All steps lie in one plan: TRL's shuffled sampler starts anew after a kill.
        shuffle_dataset=False,
        disable_dropout=True,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=settings.adapter.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        seed=settings.seed,
        use_cpu=loaded.device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )


def _answered(seed: int, answer: Answering) -> Callable[[list[list[Message]], Any], dict[str, Any]]:
    """TRL's door for own answers. Each prompt comes as often as it is to be answered."""

    def rollout(conversations: list[list[Message]], trainer: Any) -> dict[str, Any]:
        first = trainer.accelerator.process_index * len(conversations)
        places = range(first, first + len(conversations))
        step = trainer.state.global_step
        seeds = [int(sha256_json([seed, step, place])[:15], 16) for place in places]
        found = answer(conversations, seeds)
        return {
            "prompt_ids": [list(one.prompt_ids) for one in found],
            "completion_ids": [list(one.answer_ids) for one in found],
            "logprobs": None,
            "answer": [one.completion.text for one in found],
        }

    return rollout


def _rewarded(prompts: Sequence[Prompt], reward: RewardFunction) -> Callable[..., list[float | None]]:
    """TRL's kind of reward function: columns of the rows come as keywords."""

    def judged(
        *, number: list[int], answer: list[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float | None]:
        # A judge that is loaded now draws random weights first, and the trainer shuffles by the same stream.
        with torch.random.fork_rng(devices=[]):
            scored = reward([prompts[at] for at in number], answer)
        for name, value in part_means(scored).items():
            log_metric(f"{PART}{name}", value)
        return [one.reward for one in scored]

    return judged


def part_means(scored: Sequence[Scored]) -> dict[str, float]:
    """The mean of each part over the answers that have it."""
    values: dict[str, list[float]] = {}
    for one in scored:
        for name, value in one.parts.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}


class JudgedTrainer(GRPOTrainer):  # type: ignore[misc]
    """Writes a row for each step, and checkpoints that are whole or not there."""

    def __init__(self, *, log_file: Path, on_step: Callable[[], None], **options: Any) -> None:
        self.log_file = log_file
        super().__init__(callbacks=[_StepEnd(on_step)], **options)
        self.remove_callback(PrinterCallback)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the step's row to the log file; transformers' signature."""
        super().log(logs, start_time)  # lays TRL's own figures into `logs`
        if "loss" not in logs:
            return
        row = _row(self.state.global_step, logs)
        if not math.isfinite(row["policy_loss"]):
            raise InputError(
                f"rl, step {row['step']}: the loss is {row['policy_loss']}; lower rl.learning_rate (now "
                f"{self.args.learning_rate:g})"
            )
        if self.is_world_process_zero():
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, sort_keys=True) + "\n")

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: TRL's would be an empty form beside every checkpoint."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            save_weights(self.model, Path(output_dir or str(self.args.output_dir)), state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, then mark the checkpoint as whole, and only then remove the ones before."""
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        write_json(folder / STATE_FILE, {"step": self.state.global_step})
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other)


def _row(step: int, logs: Mapping[str, float]) -> dict[str, Any]:
    parts = {name.removeprefix(PART): value for name, value in logs.items() if name.startswith(PART)}
    return {"step": step, **{ours: logs.get(theirs) for theirs, ours in NAMES.items()}, "parts": parts}


class _StepEnd(TrainerCallback):
    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.on_step()
