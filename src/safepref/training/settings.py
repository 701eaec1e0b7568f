"""How one method is trained: every number resolved and checked, nothing left to a default elsewhere."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from safepref.errors import InputError
from safepref.methods import METHODS, Method
from safepref.recipe import TrainingSection
from safepref.training.monitor import FALL

MEASURED_WIDTH = 576
"""Hidden size of the embedded model, on which the adapter rates of the methods table were measured."""

PER_METHOD = ("epochs", "learning_rate", "beta", "weight", "chosen_nll", "harmless_nll", "anchor")
"""Keys of the training section that `params.METHOD` may set for one method."""

Schedule = Literal["linear", "cosine", "constant"]
AnchorKind = Literal["nll", "kl"]
NllSpan = Literal["completion", "sequence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Displacement:
    """What is done about falling chosen answers; the recipe's `training.displacement`.

    Raises:
        InputError: a value out of its range.
    """

    action: Literal["warn", "stop", "lower"] = "warn"
    fall: float = FALL
    """Nats."""
    probe: int = 0
    """Pairs held out; 0 looks at the training pairs."""
    every: int = 10
    """Optimizer steps from look to look at the probe, and between good weights kept."""
    lower_to: float = 0.5

    def __post_init__(self) -> None:
        _check("displacement.fall", self.fall, math.isfinite(self.fall) and self.fall > 0, "a number above 0")
        _check("displacement.probe", self.probe, self.probe >= 0, "a whole number from 0 up")
        _check("displacement.every", self.every, self.every >= 1, "a whole number from 1 up")
        good = 0 < self.lower_to < 1
        _check("displacement.lower_to", self.lower_to, good, "a number between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The settings of one training run.

    Raises:
        InputError: a value out of its range, or an anchor by KL or adapters in upper layers with full
            fine-tuning.
    """

    epochs: float = 2.0
    """Passes over the pairs; a part of one is allowed."""
    batch_size: int = 8
    """Pairs in a micro-batch."""
    accumulation: int = 1
    """Micro-batches in an optimizer step."""
    learning_rate: float | None = None
    """Peak rate; None takes the method's own, for adapters or for full fine-tuning."""
    beta: float | None = None
    """None takes the method's own."""
    weight: float | None = None
    """Weight of the preference loss beside NLL and anchor; None takes the method's own."""
    params: Mapping[str, float | bool] = field(default_factory=dict)
    """The loss's own parameters, see the method's row."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises from 0."""
    schedule: Schedule = "linear"
    full: bool = False
    """Train all weights, in float32, instead of an adapter."""
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_targets: str | tuple[str, ...] = "all-linear"
    lora_upper: float = 1.0
    """Share of the decoder layers, from the last one down, that get an adapter."""
    chosen_nll: Mapping[str, float] = field(default_factory=dict)
    """Weight of the NLL per token of the chosen answer, by kind of pair; a kind not named has none."""
    nll_over: NllSpan = "completion"
    """What that NLL, and ORPO's, covers: the chosen completion, or prompt and completion (as in TRL)."""
    anchor: float = 0.0
    """Weight of the general anchor, per pair."""
    anchor_kind: AnchorKind = "nll"
    """Anchor by NLL of the given answers, or by KL from the reference's distribution on them."""
    anchor_ratio: float | None = None
    """General examples to each pair; None passes all of them once an epoch."""
    max_grad_norm: float = 1.0
    save_steps: int = 20
    """Optimizer steps between checkpoints."""
    displacement: Displacement = field(default_factory=Displacement)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "lora_rank", "lora_alpha", "save_steps"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "a whole number from 1 up")
        for name in ("epochs", "learning_rate", "weight", "anchor_ratio", "max_grad_norm"):
            value = getattr(self, name)
            _check(name, value, value is None or (math.isfinite(value) and value > 0), "a number above 0")
        weights = {f"chosen_nll.{kind}": weight for kind, weight in self.chosen_nll.items()}
        for name, value in {"anchor": self.anchor, **weights}.items():
            _check(name, value, math.isfinite(value) and value >= 0, "a number from 0 up")
        upper = self.lora_upper
        _check("lora_upper", upper, 0 < upper <= 1, "a share above 0, up to 1")
        if self.full and upper < 1:
            raise InputError(
                f"training.lora_upper is {upper!r} with training.full, which trains all layers; leave one out"
            )
        _check("warmup", self.warmup, 0 <= self.warmup <= 1, "a share from 0 to 1")
        if self.full and self.anchor > 0 and self.anchor_kind == "kl":
            raise InputError(
                "training.anchor_kind is 'kl' with training.full: the reference is gone once all weights "
                "move; set anchor_kind to nll"
            )

    @classmethod
    def from_recipe(cls, section: TrainingSection, method: Method, seed: int = 0) -> TrainingSettings:
        """The settings that a recipe has for a method: the section, with `params.METHOD` on top.

        Raises:
            InputError: `params` names an unknown method, or an unknown or impossible value for this one.
        """
        for name in section.params:
            if name not in METHODS:
                near = difflib.get_close_matches(name, list(METHODS), n=1)
                hint = f"did you mean {near[0]}?" if near else f"the methods are {', '.join(METHODS)}"
                raise InputError(f"training.params.{name}: no such method; {hint}")
        own: dict[str, Any] = dict(section.params.get(method.name, {}))
        common: dict[str, Any] = {
            name: _number(f"training.params.{method.name}.{name}", own.pop(name))
            if name in own
            else getattr(section, name)
            for name in PER_METHOD
        }
        nll, harmless = common.pop("chosen_nll"), common.pop("harmless_nll")
        anchor_kind = own.pop("anchor_kind", section.anchor_kind)
        if anchor_kind not in get_args(AnchorKind):
            raise InputError(f"training.params.{method.name}.anchor_kind is {anchor_kind!r}; give nll or kl")
        nll = method.nll if nll is None else nll
        method.resolve(common["beta"], own)
        return cls(
            **common,
            params=own,
            batch_size=section.batch_size,
            accumulation=section.accumulation,
            warmup=section.warmup,
            schedule=section.schedule,
            full=section.full,
            lora_rank=section.lora_rank,
            lora_alpha=section.lora_alpha,
            lora_targets=section.lora_targets,
            lora_upper=section.lora_upper,
            chosen_nll={
                "harmful": nll,
                "preference": nll,
                "harmless": harmless,
                "ordinary": harmless,
            },
            anchor_kind=anchor_kind,
            nll_over=section.nll_over,
            anchor_ratio=section.anchor_ratio,
            max_grad_norm=section.max_grad_norm,
            save_steps=section.save_steps,
            displacement=Displacement(**section.displacement.model_dump()),
            seed=seed,
        )

    def rate(self, method: Method, width: int | None = None) -> float:
        """The peak learning rate that holds for `method`.

        Adapter rates were measured on a model of `MEASURED_WIDTH`; a wider one gets a lower rate, in inverse
        proportion to its width (Adam's rate for hidden matrices, arXiv 2203.03466, table 3).

        Args:
            method: a row of the table.
            width: the model's hidden size, if known.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        if self.full:
            return method.full_learning_rate
        return method.learning_rate * min(1.0, MEASURED_WIDTH / (width or MEASURED_WIDTH))


def _check(name: str, value: object, good: bool, what: str) -> None:
    if not good:
        raise InputError(f"training.{name} is {value!r}; give {what}")


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} is {value!r}; give a number")
    return float(value)
