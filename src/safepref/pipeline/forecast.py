"""About how long a run takes, from the recipe's counts and a probe of the machine of a few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from safepref.evaluation import CapabilityTask
from safepref.evaluation.capability import ARITHMETIC_TOKENS
from safepref.evaluation.families import family_rows
from safepref.evaluation.tasks import SOLUTION_TOKENS
from safepref.generation.base import Sampling
from safepref.generation.local import LocalEngine
from safepref.models import LoadedModel
from safepref.pipeline.prompts import Prompts, Suite
from safepref.pipeline.tasks import scores_base, swept_strengths
from safepref.recipe import Recipe
from safepref.tasks import task_of

PROMPT_TOKENS = 35
"""A typical prompt behind what all prompts begin with."""
CHAT_ANSWER = 14
"""A typical answer to a short question."""
PROBE_ROWS = 128
"""Answers that the probe decodes together; a step's cost hardly grows from here."""
PROBE_TOKENS = 8
"""New tokens of the probe's answers."""
STEP_COST = 3.3
"""Forward and backward through a LoRA model, in forward passes."""
CHARACTERS = 4.0
"""Characters of English text to a token."""


def forecast(
    recipe: Recipe,
    loaded: LoadedModel,
    prompts: Prompts,
    methods: int,
    workers: int = 1,
    *,
    evaluate: bool = True,
) -> float:
    """Seconds that data, training and evaluation take with so many workers; wrong by perhaps a third."""
    one_forward, one_decode = forward, decode = _rates(loaded, recipe)
    if workers > 1:
        with _threads(max(1, torch.get_num_threads() // workers)):
            forward, decode = (workers * rate for rate in _rates(loaded, recipe))
    data, training = recipe.data, recipe.training
    own = task_of(recipe).wanted(data)
    answers = 1.6 * own + 1.5 * (data.harmless + data.ordinary) + 1.2 * data.general
    pairs = own + data.harmless + data.ordinary + len(prompts.pairs)
    pair_tokens = PROMPT_TOKENS + 1.6 * data.answer_tokens
    example_tokens = (PROMPT_TOKENS + data.answer_tokens) * data.general
    epoch = STEP_COST * (pairs * pair_tokens + example_tokens) / forward
    epoch += _judged(recipe, pairs) / decode
    reference = pairs * pair_tokens / one_forward
    trained = answers * data.answer_tokens / one_decode + reference + methods * training.epochs * epoch
    if (rl := recipe.rl) is not None:  # one of the methods, trained otherwise
        answered = rl.steps * rl.prompts_per_step * rl.generations
        once = answered * (PROMPT_TOKENS + rl.max_tokens) / one_forward
        trained += answered * rl.max_tokens / one_decode + (STEP_COST + (rl.beta > 0)) * once
        trained -= training.epochs * epoch
    if not evaluate:
        return trained
    strengths, scored = len(swept_strengths(recipe)), methods + len(recipe.tradeoff.merges)
    report = _suite(recipe, prompts.report, forward, decode, recipe.evaluation.chat_rows)
    choose = _suite(recipe, prompts.choose, forward, decode, recipe.evaluation.choose_chat)
    chosen = scored * strengths + scores_base(recipe)
    return trained + _base(recipe, prompts) / one_decode + (scored + 1.5) * report + chosen * choose


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _base(recipe: Recipe, prompts: Prompts) -> float:
    """Tokens that the base decodes before any point is scored, beside what its report split takes over."""
    sides = [prompts.report, *([prompts.choose] if recipe.evaluation.choose else [])]
    tokens = sum(len(suite.ordinary) for suite in sides[1:]) * recipe.evaluation.answer_tokens
    if any(task.families for suite in sides for task in suite.chat):
        tokens += len(family_rows("choose")) * CHAT_ANSWER
    return float(tokens)


def _suite(recipe: Recipe, suite: Suite, forward: float, decode: float, chat_rows: int | None) -> float:
    asked = recipe.evaluation
    tokens = (len(suite.safety) + len(suite.benign)) * asked.answer_tokens
    tokens += 2 * len(suite.toxicity) * asked.continuation_tokens
    tokens += len(suite.ordinary) * asked.answer_tokens
    for task in suite.capability:
        if task.style.kind in ("generate", "written"):
            room = ARITHMETIC_TOKENS if "family" in task.rows[0] else SOLUTION_TOKENS
            tokens += len(task.rows) * room
    # Of arithmetic the suite holds all families; what is asked of a point is drawn from them.
    most = [number for number in (chat_rows, asked.limit) if number is not None]
    tokens += sum(min([len(task.rows), *most]) for task in suite.chat) * CHAT_ANSWER
    scored = sum(_scored_tokens(task) for task in (*suite.capability, *suite.nats))
    scored += len(suite.ordinary) * (PROMPT_TOKENS + asked.answer_tokens)
    return tokens / decode + scored / forward


def _judged(recipe: Recipe, pairs: int) -> float:
    """Tokens decoded an epoch by judged stopping, if no evaluation ends training."""
    section, training = recipe.training.stopping, recipe.training
    if section is None:
        return 0.0
    steps = pairs / (training.batch_size * training.accumulation)
    answers = 3 * section.prompts * section.answer_tokens + section.prompts * ARITHMETIC_TOKENS
    return steps / section.every * answers


def _scored_tokens(task: CapabilityTask) -> float:
    """Tokens whose likelihood a task asks for, contexts included, with the head's part in proportion."""
    if task.style.kind in ("generate", "written"):
        return 0.0
    texts = sum(
        len(str(value))
        for row in task.rows
        for part in row.values()
        for value in (part if isinstance(part, list | tuple) else (part,))
    )
    copies = 2 if task.style.kind == "gap" else 1
    return 1.25 * copies * texts / CHARACTERS


def _rates(loaded: LoadedModel, recipe: Recipe) -> tuple[float, float]:
    """Forward tokens and newly decoded tokens a second, each from a short measurement."""
    ids = torch.randint(0, loaded.model.config.get_text_config().vocab_size, (4, 96), device=loaded.device)
    engine = LocalEngine(loaded, batch_size=recipe.generation.batch_size, system=recipe.model.system)
    topics = [f"Write about topic number {n}." for n in range(min(PROBE_ROWS, engine.block))]
    asked = [[{"role": "user", "content": topic}] for topic in topics]
    with torch.inference_mode():
        loaded.model(input_ids=ids[:, :8], logits_to_keep=1).logits.cpu()
        start = time.perf_counter()
        loaded.model(input_ids=ids, logits_to_keep=1).logits.cpu()  # waits for an accelerator too
        forward = ids.numel() / (time.perf_counter() - start)
    start = time.perf_counter()
    tokens = sum(answer.tokens for answer in engine.generate(asked, Sampling(PROBE_TOKENS)))
    return forward, tokens / (time.perf_counter() - start)
