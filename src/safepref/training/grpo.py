"""Group relative policy optimization (GRPO, arXiv 2402.03300) with TRL's trainer, from rewards of any kind.

The loss, the groups' advantages and the KL are TRL's. Answers come from our own engine, for three reasons:
text of users is only text (TRL renders conversations with the tokenizer, which reads special tokens in them),
the template's end of turn ends an answer whatever the tokenizer calls EOS, and every answer has a random
stream of its own, by seed, step and place, so that a run that was killed goes on to the same answers.

TRL is an optional extra; this file does not import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from peft import PeftModel
from torch import nn
from transformers import set_seed

from safepref.data.records import Prompt
from safepref.errors import InputError
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.logprobs.route import unwrap
from safepref.logprobs.store import model_fingerprint
from safepref.models import LoadedModel
from safepref.store import iter_jsonl, sha256_file, sha256_json
from safepref.training.run import TAIL, TrainResult, _Place, _policy, _step_of
from safepref.training.settings import TrainingSettings

GRPO = "grpo"
TRL = "1.16"
"""The release whose trainer this is written for; its door for own answers is an experimental one."""
FIGURES = ("reward", "reward_std", "kl", "entropy", "tokens", "truncated")
"""Of a step's log: mean and deviation of the rewards, KL to the start (nats a token), entropy (nats), mean
length, and the share of answers that the token cap cut."""


SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


class Scored(NamedTuple):
    """What one answer earns. None leaves it out of the step; the parts are averaged for the log."""

    reward: float | None
    parts: Mapping[str, float]


RewardFunction = Callable[[Sequence[Prompt], Sequence[str]], Sequence[Scored]]
"""(prompts, answers) of one step, equally long -> what each answer earns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoSettings:
    """The settings of one run of GRPO; the recipe's section `rl` says what each means."""

    steps: int = 40
    prompts_per_step: int = 8
    generations: int = 8
    batch_size: int | None = None
    max_tokens: int = 48
    temperature: float = 1.0
    learning_rate: float = 5e-5
    beta: float = 0.04
    scale: Literal["batch", "group", "none"] = "batch"
    save_steps: int = 5
    seed: int = 0
    adapter: TrainingSettings
    """The shape of a fresh adapter, where it starts from the base, and the gradient's limit."""

    @property
    def answers(self) -> int:
        """Answers in a step."""
        return self.prompts_per_step * self.generations


def require_trl() -> None:
    """Check that TRL is there, without importing it.

    Raises:
        InputError: TRL is missing, or another release than the extra pins.
    """
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        found = ""
    if not found.startswith(f"{TRL}."):
        what = f"trl {found} is installed, {TRL} is needed" if found else "trl is not installed"
        raise InputError(f"rl: {what}; pip install 'safepref[rl]', or set rl to null")


def train_grpo(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    settings: GrpoSettings,
    reward: RewardFunction,
    out_dir: Path,
    progress: Callable[[int], None] | None = None,
    *,
    start: Path | None = None,
    system: str | None = None,
    rewarded_by: str = "",
    fingerprint: str | None = None,
) -> TrainResult:
    """Train an adapter into adapters/grpo; a call with the same arguments continues a killed one.

    The model is as before when it returns. Checkpoints hold weights, optimizer, schedule and random state,
    and all prompts lie in one plan, so that a continued run ends with the same weights where the hardware's
    sums are the same.

    Args:
        loaded: the base model.
        prompts: `steps * prompts_per_step` of them, in the order in which they are asked.
        settings: see `GrpoSettings`.
        reward: scores the answers of a step; equal answers must earn the same.
        out_dir: the run folder.
        progress: called with the number of newly finished steps.
        start: the adapter that it starts from, and whose policy the KL holds it to; null is the base.
        system: system prompt of conversations that have none.
        rewarded_by: what the reward is made of, so that checkpoints of another one are not continued.
        fingerprint: the base's, if known (`model_fingerprint`).

    Raises:
        InputError: TRL is missing, the adapter cannot be trained on, or a loss that is not finite.
    """
    require_trl()
    started, advance = time.monotonic(), progress or (lambda _: None)
    if len(prompts) != settings.steps * settings.prompts_per_step:
        raise ValueError(f"{len(prompts)} prompts for {settings.steps} steps of {settings.prompts_per_step}")
    identity = fingerprint or model_fingerprint(loaded)
    begun = sha256_file(start / "adapter_model.safetensors") if start else None
    stamp = sha256_json(
        [identity, begun, asdict(settings), system, rewarded_by, [prompt.to_json() for prompt in prompts]]
    )
    place = _place(out_dir)
    if (done := place.finished(stamp)) is not None:
        advance(settings.steps)
        return TrainResult(place.result, place.log, done, 0.0)
    checkpoint = place.last_checkpoint(stamp)
    set_seed(settings.seed)
    with _as_before(loaded), _start(loaded, settings, start) as policy:
        from safepref.training.grpo_trainer import make_trainer

        engine = LocalEngine(replace(loaded, model=policy), batch_size=settings.answers, system=system)
        trainer = make_trainer(
            policy=policy,
            loaded=loaded,
            settings=settings,
            prompts=prompts,
            answer=lambda conversations, seeds: engine.samples(
                conversations, seeds, Sampling(settings.max_tokens, settings.temperature)
            ),
            reward=reward,
            checkpoints=place.checkpoints,
            log_file=place.log,
            on_step=lambda: advance(1),
        )
        everyone, first = trainer.accelerator.wait_for_everyone, trainer.is_world_process_zero()
        if first:
            place.begin(checkpoint, stamp)
        everyone()
        if checkpoint is not None:
            advance(_step_of(checkpoint))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        summary = _summary(settings, list(iter_jsonl(place.log)))
        everyone()
        if first:
            place.finish(policy, loaded, summary, stamp, None)
        everyone()
    return TrainResult(place.result, place.log, summary, time.monotonic() - started)


def _place(out_dir: Path) -> _Place:
    logs = out_dir / "logs" / GRPO
    return _Place(
        result=out_dir / "adapters" / GRPO,
        checkpoints=out_dir / "checkpoints" / GRPO,
        log=logs / "training_log.jsonl",
        summary=logs / "training.json",
    )


@contextmanager
def _start(loaded: LoadedModel, settings: GrpoSettings, start: Path | None) -> Iterator[Any]:
    """The model with the adapter to train; the loaded one is without it afterwards."""
    if start is None:
        with _policy(loaded, settings.adapter) as policy:
            yield policy
        return
    policy = PeftModel.from_pretrained(loaded.model, start, is_trainable=True)
    # The id that the user gave, not the folder of the cache that it was read from.
    policy.peft_config["default"].base_model_name_or_path = loaded.id
    try:
        yield policy
    finally:
        loaded.model = policy.unload()
        loaded.model.eval()
        loaded.model.requires_grad_(False)


@contextmanager
def _as_before(loaded: LoadedModel) -> Iterator[None]:
    """Takes back what TRL's trainer changes: the forward, special tokens in the configs, dropout."""
    base = unwrap(loaded.model)
    forward = vars(base).get("forward")
    configs = (base.config, base.config.get_text_config(), base.generation_config)
    tokens = [(config, name, getattr(config, name, None)) for config in configs for name in SPECIAL]
    drops = [(module, module.p) for module in base.modules() if isinstance(module, nn.Dropout)]
    try:
        yield
    finally:
        vars(base).pop("forward", None)
        if forward is not None:
            base.forward = forward
        for config, name, token in tokens:
            setattr(config, name, token)
        for module, share in drops:
            module.p = share


def _summary(settings: GrpoSettings, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Settings as they held, every figure step by step, and its closing mean; no times."""
    tail = rows[-max(1, round(TAIL * len(rows))) :]
    names = sorted(
        {name for row in rows for name in (*FIGURES, *row["parts"]) if _figure(row, name) is not None}
    )
    curve = {name: [_figure(row, name) for row in rows] for name in names}
    held = asdict(settings)
    del held["adapter"]
    return {
        "method": GRPO,
        **held,
        "trl": metadata.version("trl"),
        "first": {name: next(value for value in curve[name] if value is not None) for name in names},
        "last": {name: _mean([_figure(row, name) for row in tail]) for name in names},
        "curve": {"step": [row["step"] for row in rows], **curve},
        "warnings": [],
    }


def _figure(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name) if name in FIGURES else row["parts"].get(name)
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
