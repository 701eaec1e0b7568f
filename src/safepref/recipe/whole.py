"""The one configuration of a run."""

from __future__ import annotations

from typing import Literal

import yaml

from safepref.recipe.base import Section
from safepref.recipe.data import DataSection
from safepref.recipe.evaluation import EvaluationSection, GenerationSection, JudgeSection
from safepref.recipe.rl import RlSection
from safepref.recipe.tradeoff import ReportSection, TradeoffSection
from safepref.recipe.training import TrainingSection


class ModelSection(Section):
    """The policy that is aligned."""

    id: str = "smollm2-135m-instruct"
    """The embedded default, a folder, or a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    quantize: Literal["4bit"] | None = None
    """4bit trains QLoRA (needs CUDA and bitsandbytes)."""
    system: str | None = None
    """A system prompt for training and evaluation; null leaves the chat template's own default."""


class Recipe(Section):
    """Everything a run needs; see each section."""

    name: str = "run"
    task: str = "safety"
    """What is trained and measured: `safety`, `moderation` or `support`."""
    methods: str = "nca,dpo"
    """Comma-separated names, `paper` (the ten of the reference work) or `all` (twelve)."""
    seed: int = 0
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    judges: JudgeSection = JudgeSection()
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()
    report: ReportSection = ReportSection()
    tradeoff: TradeoffSection = TradeoffSection()
    rl: RlSection | None = None
    """Null trains no further; needs `pip install 'safepref[rl]'`."""

    @property
    def floor(self) -> float:
        """Least rate that a recommended point clears: of safety, or of another task."""
        return self.report.safety_floor if self.task == "safety" else self.report.task_floor

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, every key present."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
