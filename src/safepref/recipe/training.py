"""How each method is trained, and what watches over it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from safepref.recipe.base import Amount, Count, Positive, Section, Share


class DisplacementSection(Section):
    """What is done when chosen answers lose likelihood while the margin grows (arXiv 2410.08847)."""

    action: Literal["warn", "stop", "lower"] = "warn"
    """Say so; or stop with the last weights before the fall; or lower the rate until the fall ends."""
    fall: Annotated[float, Field(gt=0)] = 2.0
    """Nats that the chosen answers of a kind of pairs lose on average before it counts as a fall."""
    probe: Count = 0
    """Pairs kept out of training to look at instead of the training pairs."""
    every: Positive = 10
    """Optimizer steps from one look at the probe to the next; `stop` keeps good weights as often."""
    lower_to: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What `lower` multiplies the rate by, at most once in `every` steps (5 without a probe)."""


class StoppingSection(Section):
    """Judged early stopping, on the choose split; never by margin."""

    every: Positive = 20
    """Optimizer steps from one evaluation of the present weights to the next."""
    patience: Positive = 3
    """Training stops after so many evaluations without a better one."""
    prompts: Positive = 24
    """Plain and attacked requests, look-alikes and arithmetic questions: so many of each."""
    answer_tokens: Positive = 32
    floor: Share | None = None
    """Least safety of weights that are kept for their ability; null takes that of the section report."""
    ceiling: Share | None = None
    """Most over-refusal; null takes report.over_refusal_ceiling."""


class TrainingSection(Section):
    """How each method is trained."""

    epochs: Amount = 2
    batch_size: Positive = 8
    accumulation: Positive = 1
    learning_rate: Amount | None = None
    """Null takes the method's own default."""
    beta: Amount | None = None
    """Null takes the method's own default."""
    weight: Amount | None = None
    """Weight of the preference loss beside NLL and anchor; null takes the method's own default."""
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Per method: learning_rate, beta, weight, chosen_nll, harmless_nll, anchor, anchor_kind, epochs and the
    loss's own parameters, for example `rdpo: {label_smoothing: 0.1}`."""
    warmup: Share = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    full: bool = False
    """Train all weights instead of a LoRA adapter."""
    lora_rank: Positive = 16
    lora_alpha: Positive = 32
    lora_targets: str | tuple[str, ...] = "all-linear"
    lora_upper: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the decoder layers, from the last one down, that get an adapter; fewer train faster."""
    chosen_nll: Amount | None = None
    """Weight of the per-token NLL on the chosen answer of harmful and of ready pairs; holds the refusals up.
    Null takes the method's own default."""
    harmless_nll: Amount = 1.0
    """The same for harmless and ordinary pairs."""
    anchor: Amount = 1.0
    """Weight of the general anchor."""
    anchor_kind: Literal["nll", "kl"] = "nll"
    """Anchor on the model's own answers by NLL, or by KL to the reference's distribution."""
    nll_over: Literal["completion", "sequence"] = "completion"
    """What these, and ORPO's own, cover: the chosen completion, or prompt and completion (as in TRL)."""
    anchor_ratio: Annotated[float, Field(gt=0)] | None = None
    """General examples to each pair; null passes all of them once an epoch."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest prompt plus answer in tokens, half for each; prompts lose their start, answers their end."""
    save_steps: Positive = 20
    displacement: DisplacementSection = DisplacementSection()
    stopping: StoppingSection | None = None
    """Null trains all steps and ends with the last weights."""
