"""One thin Trainer: rows through the log-prob engine, a method's loss, the general anchor.

transformers brings the loop, clipping, schedule, checkpoints and launchers; here are only the loss and the
state that belongs to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from safepref.errors import Diverged
from safepref.hardware import release_memory
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import CompletionLogps, LogprobEngine
from safepref.methods import Logps, LossOutput, Method
from safepref.store import read_json, write_json
from safepref.training.control import StepControl
from safepref.training.monitor import Monitor
from safepref.training.plan import CHOSEN, REJECTED, MicroBatch, Plan
from safepref.training.rows import TrainingExample, TrainingPair
from safepref.training.settings import TrainingSettings

STATE_FILE = "safepref.json"
"""Written last into a checkpoint: one without it was cut off while it was saved."""

RELEASE_STEPS = 10
"""Optimizer steps after which free memory goes back: ragged batches leave holes that others do not fit."""

MISMATCHED = 2
"""Column of the mismatched completion behind chosen and rejected."""


def pair_rows(pairs: Sequence[TrainingPair], plan: Plan) -> list[TokenRow]:
    """The row scored for each pair: chosen, rejected and, if the plan has one, the mismatched completion.

    Where that is one of the pair's own answers, as refusals in few wordings are, the other pair's other side
    stands for it: KTO's z0 would be the reward itself.
    """
    if plan.mismatched is None:
        return [pair.row for pair in pairs]
    rows = []
    for pair, (other, side) in zip(pairs, plan.mismatched, strict=True):
        own, theirs = pair.row.completions, pairs[other].row.completions
        strange = theirs[1 - side] if theirs[side] in own and theirs[1 - side] not in own else theirs[side]
        rows.append(TokenRow(pair.row.prompt_ids, (*own, strange)))
    return rows


def save_weights(model: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """Write a model, or just its adapter, as safetensors."""
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder, state_dict=state_dict)
        return
    # PEFT's own saving asks a hub whether the vocabulary has grown, and adds a card that is an empty form.
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, state_dict=state_dict, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    config = copy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    config.save_pretrained(folder)


class RunningMean:
    """The mean of all rewards up to the last finished optimizer step: BCO's shift (arXiv 2404.04656).

    Values of the step in work wait until it ends, so that the shift does not depend on how a step is split
    into micro-batches.
    """

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self._waiting: list[float] = []

    @property
    def value(self) -> float:
        """0 before the first step, where all rewards are 0."""
        return self.total / self.count if self.count else 0.0

    def add(self, values: Sequence[float]) -> None:
        """Rewards of a micro-batch."""
        self._waiting.extend(values)

    def commit(self) -> None:
        """The step is done."""
        self.total += sum(self._waiting)
        self.count += len(self._waiting)
        self._waiting.clear()


class PreferenceTrainer(Trainer):
    """Trains a policy by one method from planned micro-batches.

    Args:
        engine: scores rows under the policy.
        rows: one a pair, as `pair_rows` makes them.
        reference: the reference's sums on those rows, (P, 2) or (P, 3) with the mismatched completion.
        log_file: where each optimizer step appends a JSON line.
        on_step: called after each optimizer step.
    """

    def __init__(
        self,
        *,
        engine: LogprobEngine,
        arguments: TrainingArguments,
        method: Method,
        settings: TrainingSettings,
        plan: Plan,
        pairs: Sequence[TrainingPair],
        rows: Sequence[TokenRow],
        examples: Sequence[TrainingExample],
        reference: CompletionLogps,
        log_file: Path,
        on_step: Callable[[], None],
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.controls: list[StepControl] = []
        self.engine, self.method, self.settings, self.plan = engine, method, settings, plan
        self.pairs, self.rows, self.examples = pairs, rows, examples
        self.reference = reference
        self.log_file = log_file
        self.beta, self.params = method.resolve(settings.beta, settings.params)
        self.weight = method.weight if settings.weight is None else settings.weight
        self.monitor = Monitor(method.name, settings.displacement.fall)
        self.shift = RunningMean()
        self._seen = 0
        super().__init__(
            model=engine.model,
            args=arguments,
            train_dataset=cast(Any, plan.batches),
            data_collator=lambda items: {"batch": items[0]},
            callbacks=[*callbacks, _StepEnd(self, on_step)],
        )
        # The loss is a mean over a micro-batch: the Trainer divides it by the accumulation, not by tokens.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one micro-batch, a mean over its pairs; transformers' signature."""
        # Evaluation mode: with dropout the policy would differ from its own reference at the first step.
        model.eval()
        self.engine.model = model
        batch: MicroBatch = inputs["batch"]
        anchored = [self.examples[e] for e in batch.examples]
        rows = [self.rows[p] for p in batch.pairs]
        if self.settings.nll_over == "sequence":
            rows += [_whole_chosen(self.pairs[p]) for p in batch.pairs]
        if self.settings.anchor_kind == "nll":
            rows += [example.row for example in anchored]
        scored = self.engine.completion_logps(rows)
        logps, kept = self._logps(batch, scored)
        weights = self._weights(batch, scored.sums.device)
        if self.method.keeps_pairs:
            logps = replace(logps, weights=weights)
        output = self.method(logps, beta=self.beta, **self.params)
        preference = self.weight * output.losses.mean()
        nll = weights.new_zeros(())
        if not self.method.holds_nll(self.params):
            nll = (weights * self._nll_weights(batch, weights.device) * cast(Tensor, logps.chosen_nll)).mean()
        anchor = self._anchor(scored, anchored, len(batch.pairs))
        loss = preference + nll + anchor
        if not torch.isfinite(loss):
            raise Diverged(
                f"{self.method.name}, step {self.state.global_step + 1}: the loss is {loss.item()}; lower "
                f"training.learning_rate (now {self.args.learning_rate:g}) or check the pairs "
                f"numbered {', '.join(map(str, batch.pairs))}"
            )
        self._note(batch, kept, output, preference, nll, anchor)
        return (loss, output) if return_outputs else loss

    def _logps(self, batch: MicroBatch, scored: CompletionLogps) -> tuple[Logps, tuple[Tensor, Tensor]]:
        """What the loss reads, and the detached changes of (chosen, rejected) sums, (B,) each."""
        size = len(batch.pairs)
        device = scored.sums.device
        picked = list(batch.pairs)
        policy, counts = scored.sums[:size], scored.counts[:size]
        reference = self.reference.sums[picked].to(device)
        changes = (policy.detach() - reference)[:, CHOSEN], (policy.detach() - reference)[:, REJECTED]
        nll = -policy[:, CHOSEN] / counts[:, CHOSEN]
        if self.settings.nll_over == "sequence":
            nll = -scored.sums[size : 2 * size, 0] / scored.counts[size : 2 * size, 0]
        policy_kl = reference_kl = None
        if self.plan.mismatched is not None:
            # z0 is one number for all processes, whose micro-batches may differ in size by a pair.
            mine = torch.stack((policy.detach(), reference))[:, :, MISMATCHED].tolist()
            policy_kl, reference_kl = (
                torch.tensor([value for theirs in both for value in theirs], device=device)
                for both in zip(*gather_object([mine]), strict=True)
            )
        if self.method.length_normalised:
            policy, reference = policy / counts.clamp(min=1), reference / counts.clamp(min=1)
        logps = Logps(
            policy_chosen=policy[:, CHOSEN],
            policy_rejected=policy[:, REJECTED],
            reference_chosen=reference[:, CHOSEN],
            reference_rejected=reference[:, REJECTED],
            policy_kl=policy_kl,
            reference_kl=reference_kl,
            chosen_nll=nll,
            delta=self.shift.value,
        )
        return logps, changes

    def _weights(self, batch: MicroBatch, device: torch.device) -> Tensor:
        return torch.tensor([float(self.pairs[p].weight) for p in batch.pairs], device=device)

    def _nll_weights(self, batch: MicroBatch, device: torch.device) -> Tensor:
        by_kind = self.settings.chosen_nll
        return torch.tensor([by_kind.get(self.pairs[p].kind, 0.0) for p in batch.pairs], device=device)

    def _anchor(self, scored: CompletionLogps, anchored: Sequence[TrainingExample], pairs: int) -> Tensor:
        """The general anchor of a micro-batch; per expected example, so that batches can be split freely."""
        if not anchored:
            return scored.sums.new_zeros(())
        if self.settings.anchor_kind == "nll":
            sums, counts = scored.sums[-len(anchored) :, 0], scored.counts[-len(anchored) :, 0]
            values = -sums / counts
        else:
            kl = self.engine.kl_to_reference([example.row for example in anchored]).completions()
            values = kl.sums[:, 0] / kl.counts[:, 0]
        weights = torch.tensor([float(example.weight) for example in anchored], device=values.device)
        return self.settings.anchor * (weights * values).sum() / (self.plan.anchor_ratio * pairs)

    def _note(
        self,
        batch: MicroBatch,
        changes: tuple[Tensor, Tensor],
        output: LossOutput,
        preference: Tensor,
        nll: Tensor,
        anchor: Tensor,
    ) -> None:
        """Keep what the log and BCO's shift need, of all processes together."""
        chosen, rejected = output.chosen_rewards, output.rejected_rewards
        kinds = [self.pairs[p].kind for p in batch.pairs]
        mine = {
            "pairs": list(zip(kinds, changes[CHOSEN].tolist(), changes[REJECTED].tolist(), strict=True)),
            "rewards": torch.cat((chosen, rejected)).tolist(),
            "parts": {
                "preference_loss": preference.item(),
                "nll_loss": nll.item(),
                "anchor_loss": anchor.item(),
                "reward_margin": (chosen - rejected).mean().item(),
                "accuracy": (changes[CHOSEN] > changes[REJECTED]).float().mean().item(),
            },
        }
        for note in gather_object([mine]):
            self.shift.add(note["rewards"])
            self.monitor.add(note["pairs"], note["parts"])
            self._seen += len(note["pairs"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the step's row to the log file; transformers' signature."""
        if "loss" in logs:
            row: dict[str, Any] = {
                "step": self.state.global_step,
                "epoch": self._seen / len(self.pairs),
                "loss": logs["loss"],
                "grad_norm": logs.get("grad_norm"),
                "learning_rate": logs["learning_rate"],
                "mean_reward": self.shift.value,
                **self.monitor.finish_step(self.state.global_step),
            }
            for control in self.controls:
                row |= control.after_step(self)
            if self.is_world_process_zero():
                with self.log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row, sort_keys=True) + "\n")
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: transformers estimates from `input_ids`, which the rows do not have."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.plan.batches)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            save_weights(self.model, Path(output_dir or str(self.args.output_dir)), state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, then mark the checkpoint as whole, and only then remove the ones before."""
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        state = {
            "monitor": self.monitor.state(),
            "shift": [self.shift.total, self.shift.count],
            "seen": self._seen,
            "controls": {control.name: control.state() for control in self.controls},
        }
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        write_json(folder / STATE_FILE, state)
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other)
        for control in self.controls:
            control.prune()

    def restore(self, checkpoint: Path) -> None:
        """Take back what a checkpoint keeps beside the weights, the optimizer and the schedule."""
        state = read_json(checkpoint / STATE_FILE)
        self.monitor.restore(state["monitor"])
        self.shift.total, self.shift.count = state["shift"]
        self._seen = state["seen"]
        for control in self.controls:
            control.restore(state["controls"][control.name])

    @property
    def stopped(self) -> bool:
        """Whether a control has ended training before its last planned step."""
        return any(control.stopped is not None for control in self.controls)

    def scale_rate(self, factor: float) -> None:
        """Multiply the rate of all steps to come; the schedule's shape stays, and checkpoints have it."""
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
        schedule._last_lr = [rate * factor for rate in schedule.get_last_lr()]  # what the log shows
        for group in cast(Any, self.optimizer).param_groups:
            group["lr"] *= factor


class _StepEnd(TrainerCallback):
    """Ends the step in the trainer's own state before a checkpoint can be written."""

    def __init__(self, trainer: PreferenceTrainer, on_step: Callable[[], None]) -> None:
        self.trainer, self.on_step = trainer, on_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.shift.commit()
        if state.global_step % RELEASE_STEPS == 0:
            release_memory()
        self.on_step()


def _whole_chosen(pair: TrainingPair) -> TokenRow:
    """Prompt and chosen completion as one text, all of it scored but the first token."""
    prompt = pair.row.prompt_ids
    return TokenRow(prompt[:1], (prompt[1:] + pair.row.completions[CHOSEN],))
