"""The one configuration of a run: strict models, read from YAML, `--set a.b=c` laid on top.

An unknown key is an error that names the nearest known one. The resolved recipe is written into the run
folder, so a run can always be repeated from it.
"""

from __future__ import annotations

from safepref.recipe.base import EXTENDED, SHIPPED, STARTER, Names, Section, Share, as_names
from safepref.recipe.data import DataSection, Weights
from safepref.recipe.evaluation import EvaluationSection, GenerationSection, JudgeSection
from safepref.recipe.reading import (
    all_keys,
    explain,
    known_keys,
    load_recipe,
    parse_recipe,
    parse_yaml,
    read_text,
)
from safepref.recipe.rl import RewardSection, RlSection
from safepref.recipe.tradeoff import Merge, ReportSection, TradeoffSection
from safepref.recipe.training import DisplacementSection, StoppingSection, TrainingSection
from safepref.recipe.whole import ModelSection, Recipe

__all__ = [
    "EXTENDED",
    "SHIPPED",
    "STARTER",
    "DataSection",
    "DisplacementSection",
    "EvaluationSection",
    "GenerationSection",
    "JudgeSection",
    "Merge",
    "ModelSection",
    "Names",
    "Recipe",
    "ReportSection",
    "RewardSection",
    "RlSection",
    "Section",
    "Share",
    "StoppingSection",
    "TradeoffSection",
    "TrainingSection",
    "Weights",
    "all_keys",
    "as_names",
    "explain",
    "known_keys",
    "load_recipe",
    "parse_recipe",
    "parse_yaml",
    "read_text",
]
