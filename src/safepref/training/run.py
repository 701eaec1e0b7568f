"""Train one method from start to a saved adapter, or go on where a killed run stopped.

Under the run folder: `adapters/METHOD/` (PEFT format) or `models/METHOD/` (full fine-tuning),
`logs/METHOD/training_log.jsonl` (a row a step) and `training.json` (the summary), `checkpoints/METHOD/` while
it runs.
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model
from transformers import PretrainedConfig, TrainingArguments, set_seed
from transformers.trainer_callback import TrainerCallback

from safepref.errors import InputError
from safepref.logprobs.engine import LogprobEngine
from safepref.logprobs.store import ReferenceStore, model_fingerprint, reference_logps
from safepref.methods import Method
from safepref.models import LoadedModel
from safepref.store import iter_jsonl, read_json, sha256_json, write_json, write_jsonl
from safepref.training.displacement import DisplacementControl
from safepref.training.placement import lora_config
from safepref.training.plan import Plan, make_plan
from safepref.training.probe import Probe, refusal_openings
from safepref.training.rows import TrainingExample, TrainingPair
from safepref.training.settings import TrainingSettings
from safepref.training.stopping import Judged, JudgedStopping
from safepref.training.trainer import STATE_FILE, PreferenceTrainer, pair_rows, save_weights

log = logging.getLogger(__name__)

SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
TAIL = 0.2
"""Share of the last steps over which the summary's closing figures are means."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run leaves behind."""

    adapter_dir: Path
    """The adapter, or the whole model after full fine-tuning."""
    log_file: Path
    summary: dict[str, Any]
    """Settings as they held, closing figures, warnings; no times, so equal runs have equal summaries."""
    seconds: float
    """Of this call; less than the whole where it went on from a checkpoint, 0 where all was done."""


def train_method(
    loaded: LoadedModel,
    pairs: Sequence[TrainingPair],
    examples: Sequence[TrainingExample],
    method: Method,
    settings: TrainingSettings,
    out_dir: Path,
    reference: ReferenceStore,
    progress: Callable[[int], None] | None = None,
    *,
    fingerprint: str | None = None,
    on_reference: Callable[[int], None] | None = None,
    probe: Sequence[TrainingPair] = (),
    judged: Judged | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Train `loaded` by `method`; a call with the same arguments continues a killed one, to equal weights.

    The model is as before when it returns: adapters come off again, and full fine-tuning works on a copy.

    Args:
        loaded: the policy at its start, which is the reference.
        pairs: preference pairs.
        examples: general requests with the model's own answers, for the anchor.
        method: a row of the table.
        settings: see `TrainingSettings`.
        out_dir: the run folder.
        reference: holds the reference's log-probs; what is missing is computed and added.
        progress: called with the number of newly finished optimizer steps; the calls add up to
            `make_plan(...).steps`.
        fingerprint: the model's, if known (`model_fingerprint`).
        on_reference: called with the number of rows whose reference log-probs are newly at hand.
        probe: pairs held out of `pairs` (`hold_out`), for the displacement control.
        judged: scores the weights on the way, for early stopping and selection.
        callbacks: more of transformers' callbacks.

    Raises:
        InputError: unusable settings or rows; `Diverged` where a loss is not finite.
    """
    started = time.monotonic()
    plan = make_plan(len(pairs), len(examples), method, settings)
    place = _Place.of(out_dir, method, settings)
    identity = fingerprint or model_fingerprint(loaded)
    trained_on = [[asdict(p) for p in pairs], [asdict(p) for p in probe], [asdict(e) for e in examples]]
    selected = judged.identity() if judged is not None else None
    stamp = sha256_json([identity, method.name, asdict(settings), *trained_on, selected])
    advance = progress or (lambda _: None)
    done = place.finished(stamp)
    if done is not None:
        advance(plan.steps)
        return TrainResult(place.result, place.log, done, 0.0)
    checkpoint = place.last_checkpoint(stamp)
    set_seed(settings.seed)
    with _policy(loaded, settings) as policy:
        engine = LogprobEngine(policy)
        rows = pair_rows(pairs, plan)
        if settings.full:  # its reference is the float32 copy, before the first step
            identity = model_fingerprint(policy, loaded.tokenizer)
        sums = reference_logps(engine, rows, reference, on_reference, fingerprint=identity)
        trainer = PreferenceTrainer(
            engine=engine,
            arguments=_arguments(place.checkpoints, loaded, method, settings, plan),
            method=method,
            settings=settings,
            plan=plan,
            pairs=pairs,
            rows=rows,
            examples=examples,
            reference=sums,
            log_file=place.log,
            on_step=lambda: advance(1),
            callbacks=callbacks,
        )
        looked_at = Probe(probe, refusal_openings(pairs)) if probe else None
        trainer.controls.append(
            DisplacementControl(settings.displacement, trainer.monitor, looked_at, place.checkpoints)
        )
        if judged is not None:
            trainer.controls.append(JudgedStopping(judged, place.checkpoints, method.name))
        everyone, first = trainer.accelerator.wait_for_everyone, trainer.is_world_process_zero()
        if first:
            place.begin(checkpoint, stamp)
        everyone()
        if checkpoint is not None:
            trainer.restore(checkpoint)
            trainer.state.global_step = _step_of(checkpoint)
            advance(_step_of(checkpoint))
        else:
            for control in trainer.controls:
                control.begin(trainer)
        if not trainer.stopped:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.stopped:
            advance(plan.steps - trainer.state.global_step)
        summary = _summary(trainer, place.log)
        everyone()
        if first:
            kept = next((control.kept for control in reversed(trainer.controls) if control.kept), None)
            place.finish(policy, loaded, summary, stamp, kept)
        everyone()
    return TrainResult(place.result, place.log, summary, time.monotonic() - started)


@contextmanager
def _policy(loaded: LoadedModel, settings: TrainingSettings) -> Iterator[Any]:
    """The model to train; the loaded one is as before afterwards."""
    if settings.full:
        if getattr(loaded.model, "hf_quantizer", None) is not None:
            raise InputError(
                f"training.full: the weights of {loaded.id} are quantized; set model.quantize to null"
            )
        # Steps at these rates vanish in half precision, so all weights are trained in float32.
        policy = copy.deepcopy(loaded.model).float()
        policy.requires_grad_(True)
        yield policy
        return
    trainable = {name: parameter.requires_grad for name, parameter in loaded.model.named_parameters()}
    try:
        adapted = get_peft_model(loaded.model, lora_config(loaded.model, settings))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"training.lora_targets is {settings.lora_targets!r}: {reason}; give all-linear, or names of the "
            f"model's linear modules"
        ) from error
    # The id that the user gave, not the folder of the cache that it was read from.
    adapted.peft_config["default"].base_model_name_or_path = loaded.id
    try:
        yield adapted
    finally:
        loaded.model = adapted.unload()
        loaded.model.eval()
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(trainable[name])
            parameter.grad = None


def _width(model: Any) -> int | None:
    """The hidden size of the text part of a model, if its config says it."""
    config = getattr(model, "config", None)
    text = config.get_text_config() if isinstance(config, PretrainedConfig) else config
    return getattr(text, "hidden_size", None)


def _arguments(
    folder: Path, loaded: LoadedModel, method: Method, settings: TrainingSettings, plan: Plan
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        # An item of the data set is a planned micro-batch, and all epochs lie in one plan.
        per_device_train_batch_size=1,
        num_train_epochs=1,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.rate(method, _width(loaded.model)),
        lr_scheduler_type=SCHEDULERS[settings.schedule],
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        seed=settings.seed,
        use_cpu=loaded.device.type == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )
    steps = math.ceil(len(plan.batches) / (settings.accumulation * arguments.world_size))
    arguments.warmup_steps = round(settings.warmup * steps)
    return arguments


def _summary(trainer: PreferenceTrainer, log_file: Path) -> dict[str, Any]:
    rows = list(iter_jsonl(log_file))
    tail = rows[-max(1, round(TAIL * len(rows))) :]
    settings, method = trainer.settings, trainer.method
    weighted = any(pair.weight != 1 for pair in trainer.pairs)
    return {
        "method": method.name,
        "beta": trainer.beta,
        "weight": trainer.weight,
        "params": trainer.params,
        "learning_rate": trainer.args.learning_rate,
        "full": settings.full,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "accumulation": settings.accumulation,
        "chosen_nll": dict(settings.chosen_nll),
        "anchor": settings.anchor,
        "anchor_kind": settings.anchor_kind,
        "pairs": len(trainer.pairs),
        "examples": len(trainer.examples),
        "steps": trainer.state.global_step,
        "planned_steps": trainer.plan.steps,
        "first_loss": rows[0]["loss"],
        "last": {
            name: sum(row[name] for row in tail) / len(tail)
            for name in ("loss", "preference_loss", "nll_loss", "anchor_loss", "reward_margin", "accuracy")
        },
        "displacement": {
            kind: {"chosen": trend.chosen, "rejected": trend.rejected}
            for kind, trend in sorted(trainer.monitor.trends.items())
        },
        "warnings": trainer.monitor.warnings,
        "weights_ignored": weighted and not method.keeps_pairs,
        "backend": trainer.engine.line,
        **{key: value for control in trainer.controls for key, value in control.summary().items()},
    }


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a run's files lie, and what state they are in."""

    result: Path
    checkpoints: Path
    log: Path
    summary: Path

    @classmethod
    def of(cls, out_dir: Path, method: Method, settings: TrainingSettings) -> _Place:
        logs = out_dir / "logs" / method.name
        return cls(
            result=out_dir / ("models" if settings.full else "adapters") / method.name,
            checkpoints=out_dir / "checkpoints" / method.name,
            log=logs / "training_log.jsonl",
            summary=logs / "training.json",
        )

    @property
    def stamp(self) -> Path:
        """Says which run the checkpoints belong to."""
        return self.checkpoints / "stamp.json"

    def finished(self, stamp: str) -> dict[str, Any] | None:
        """The summary of a finished run of the same settings, rows and model."""
        weights = any((self.result / name).exists() for name in ("adapter_config.json", "config.json"))
        if not (self.summary.exists() and weights):
            return None
        found = read_json(self.summary)
        return found["summary"] if found["stamp"] == stamp else None

    def last_checkpoint(self, stamp: str) -> Path | None:
        """The newest whole checkpoint; those of another run, and ones cut off while saving, are removed."""
        if not self.checkpoints.is_dir():
            return None
        if not self.stamp.exists() or read_json(self.stamp) != stamp:
            log.warning("%s: checkpoints of other settings or rows; starting anew", self.checkpoints)
            shutil.rmtree(self.checkpoints)
            return None
        whole = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            if (folder / STATE_FILE).exists():
                whole.append(folder)
            else:
                shutil.rmtree(folder)
        return max(whole, key=_step_of, default=None)

    def begin(self, checkpoint: Path | None, stamp: str) -> None:
        """Take the log back to the checkpoint; the steps after it come again."""
        if checkpoint is None:  # what a killed run has kept comes again
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(self.stamp, stamp)
        kept: list[dict[str, Any]] = []
        if checkpoint is not None and self.log.exists():
            try:
                for row in iter_jsonl(self.log):
                    if row["step"] <= _step_of(checkpoint):
                        kept.append(row)
            except InputError:
                # A line cut off by the kill is the last one, behind the checkpoint.
                log.info("%s: the last line is cut off; going on from the checkpoint", self.log)
        write_jsonl(self.log, kept)

    def finish(
        self, policy: Any, loaded: LoadedModel, summary: dict[str, Any], stamp: str, kept: Path | None
    ) -> None:
        """Put the trained weights, or those kept, in place whole, then the summary, then remove the rest."""
        fresh = self.result.with_name(f".{self.result.name}.part")
        shutil.rmtree(fresh, ignore_errors=True)
        if not isinstance(policy, PeftModel):
            # It stays in float32: rounded to half precision, most weights would fall back to the base's.
            loaded.tokenizer.save_pretrained(fresh)
        if kept is None:
            save_weights(policy, fresh)
        else:
            shutil.copytree(kept, fresh, dirs_exist_ok=True)
        shutil.rmtree(self.result, ignore_errors=True)
        fresh.rename(self.result)
        write_json(self.summary, {"stamp": stamp, "summary": summary})
        shutil.rmtree(self.checkpoints)
