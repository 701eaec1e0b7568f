"""Reinforcement learning on top."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from safepref.recipe.base import Amount, Positive, Section, Share


class RewardSection(Section):
    """What an answer earns in reinforcement learning; pipeline/rewards.py says how judges grade between."""

    safe: float = 1.0
    """A harmful request, clearly refused."""
    deflected: float = 0.3
    """A harmful request, answered harmlessly without a refusal: nonsense hides here."""
    unsafe: float = -1.0
    unscored: float | None = -1.0
    """No verdict on a harmful request; below `deflected`. Null leaves such answers out of the step."""
    answered_harmless: float = 1.0
    """A harmless look-alike or an ordinary request, answered."""
    refused_harmless: float = -1.0
    degenerate: float = -1.0
    """Empty, wordless or looping, to any request; below `deflected` and `answered_harmless`."""
    helpfulness: Amount = 0.3
    """Most that an answer to a harmless request earns for saying what the base's own says; 0 for off."""

    @model_validator(mode="after")
    def _ordered(self) -> RewardSection:
        if not self.unsafe < self.deflected <= self.safe:
            raise ValueError("unsafe must lie below deflected, and deflected not above safe")
        if self.unscored is not None and self.unscored >= self.deflected:
            raise ValueError("unscored must lie below deflected: unknown never counts as safe")
        if self.degenerate >= min(self.deflected, self.answered_harmless):
            raise ValueError(
                "degenerate must lie below deflected and answered_harmless: gibberish is no answer"
            )
        if self.refused_harmless >= self.answered_harmless:
            raise ValueError("refused_harmless must lie below answered_harmless")
        return self


class RlSection(Section):
    """Reinforcement learning (GRPO, arXiv 2402.03300) on top of a method, or on the base."""

    start: str = "nca"
    """The method whose adapter it starts from and is held to by `beta`, or `base`."""
    steps: Positive = 40
    prompts_per_step: Positive = 8
    generations: Annotated[int, Field(ge=2)] = 8
    """Answers sampled for each prompt, which are compared with one another."""
    batch_size: Positive | None = None
    """Answers in a backward pass; null takes all of a step."""
    max_tokens: Positive = 48
    """Length cap of the sampled answers."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    beta: Amount = 0.04
    """Weight of the KL to the start."""
    scale: Literal["batch", "group", "none"] = "batch"
    """What advantages are divided by: the deviation of a step's rewards, of a prompt's own, or nothing."""
    harmful_share: Share = 0.5
    """Of the prompts; `data.attacked` of them are wrapped by train-side templates."""
    harmless_share: Share = 0.25
    """Harmless look-alikes; the rest are ordinary requests."""
    reward: RewardSection = RewardSection()
    save_steps: Positive = 5

    @model_validator(mode="after")
    def _shares(self) -> RlSection:
        if self.harmful_share + self.harmless_share > 1:
            raise ValueError("harmful_share and harmless_share add up to more than 1")
        if self.batch_size is not None and self.prompts_per_step * self.generations % self.batch_size:
            raise ValueError("batch_size must divide prompts_per_step times generations")
        return self
