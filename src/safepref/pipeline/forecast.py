"""About how long a run takes, from the recipe's counts and a probe of the machine of a few seconds."""

from __future__ import annotations

import time

import torch

from safepref.evaluation import CapabilityTask
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.models import LoadedModel
from safepref.pipeline.prompts import Prompts, Suite
from safepref.recipe import Recipe

PROMPT_TOKENS = 60
"""A typical prompt with its chat template."""
STEP_COST = 3.3
"""Forward and backward through a LoRA model, in forward passes."""
LIKELIHOOD_TOKENS = 60
"""Tokens that one answer option of a benchmark row costs, context included."""


def forecast(recipe: Recipe, loaded: LoadedModel, prompts: Prompts, methods: int) -> float:
    """Seconds that data, training and evaluation take; wrong by perhaps a third."""
    forward, decode = _rates(loaded, recipe)
    data, training, asked = recipe.data, recipe.training, recipe.evaluation
    answers = 1.6 * data.harmful + 1.5 * data.harmless + 1.2 * data.general
    pairs = data.harmful + data.harmless + len(prompts.pairs)
    pair_tokens = PROMPT_TOKENS + 1.6 * data.answer_tokens
    example_tokens = (PROMPT_TOKENS + data.answer_tokens) * data.general
    epoch = STEP_COST * (pairs * pair_tokens + example_tokens) / forward
    reference = pairs * pair_tokens / forward
    strengths = len(asked.strengths) if asked.choose else 0
    report = _suite(recipe, prompts.report, forward, decode)
    choose = _suite(recipe, prompts.choose, forward, decode)
    return (
        answers * data.answer_tokens / decode
        + reference
        + methods * training.epochs * epoch
        + (methods + 1.5) * report
        + methods * strengths * choose
    )


def _suite(recipe: Recipe, suite: Suite, forward: float, decode: float) -> float:
    asked = recipe.evaluation
    tokens = (len(suite.safety) + len(suite.benign)) * asked.answer_tokens
    tokens += 2 * len(suite.toxicity) * asked.continuation_tokens
    scored = sum(_options(task) for task in suite.capability)
    return tokens / decode + scored * LIKELIHOOD_TOKENS / forward


def _options(task: CapabilityTask) -> int:
    return sum(len(row.get("choices", ())) or 1 for row in task.rows)


def _rates(loaded: LoadedModel, recipe: Recipe) -> tuple[float, float]:
    """Forward tokens and newly decoded tokens a second, each from a short measurement."""
    ids = torch.randint(0, loaded.model.config.vocab_size, (4, 96), device=loaded.device)
    engine = LocalEngine(loaded, batch_size=recipe.generation.batch_size, system=recipe.model.system)
    topics = [f"Write about topic number {n}." for n in range(recipe.generation.batch_size)]
    asked = [[{"role": "user", "content": topic}] for topic in topics]
    with torch.inference_mode():
        loaded.model(input_ids=ids[:, :8], logits_to_keep=1)
        start = time.perf_counter()
        loaded.model(input_ids=ids, logits_to_keep=1)
        forward = ids.numel() / (time.perf_counter() - start)
    start = time.perf_counter()
    tokens = sum(answer.tokens for answer in engine.generate(asked, Sampling(8)))
    return forward, tokens / (time.perf_counter() - start)
