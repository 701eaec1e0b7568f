"""Pairs and examples as token rows for training; what the length limits do is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safepref.data.limits import Limits, Truncation, fit_completion, fit_prompt
from safepref.data.records import Example, Message, Pair
from safepref.data.render import Renderer, renderer
from safepref.errors import InputError
from safepref.logprobs.rows import TokenRow
from safepref.progress import console
from safepref.training import TrainingExample, TrainingPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def training_rows(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    examples: Sequence[Example],
    limits: Limits,
    system: str | None = None,
) -> tuple[list[TrainingPair], list[TrainingExample]]:
    """Everything that is trained on, as token ids.

    A side that a token cap cut when it was generated gets no end-of-turn token: its end was not the model's.

    Raises:
        InputError: no pair is left within the limits.
    """
    render, count = renderer(tokenizer, system), Truncation(rows=len(pairs))
    rows: list[TrainingPair] = []
    for pair in pairs:
        row = pair_row(render, pair, limits, count)
        if row is not None:
            rows.append(TrainingPair(row, pair.kind, pair.weight))
    kept: list[TrainingExample] = []
    for example in examples:
        prompt_ids, ids = _ids(render, example.messages, example.completion, example.truncated)
        prompt = fit_prompt(prompt_ids, limits, count)
        if prompt is not None:
            row = TokenRow(tuple(prompt), (tuple(fit_completion(ids, limits, count)),))
            kept.append(TrainingExample(row, example.weight))
    if not rows:
        raise InputError(f"no pair fits training.max_length ({count}); raise it")
    if count.prompts_cut or count.refused or count.completions_cut:
        console().print(f"  lengths: {count}")
    return rows, kept


def pair_row(render: Renderer, pair: Pair, limits: Limits, count: Truncation) -> TokenRow | None:
    """A pair as token ids; None where the length limits leave no difference or no prompt. `count` is told."""
    sides = [
        _ids(render, pair.messages, text, bool(pair.meta.get(f"{side}_truncated")))
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]
    prompt = fit_prompt(sides[0][0], limits, count)
    completions = tuple(tuple(fit_completion(ids, limits, count)) for _, ids in sides)
    if completions[0] == completions[1]:
        count.refused += 1  # the length limit cut away where they differ
        return None
    return None if prompt is None else TokenRow(tuple(prompt), completions)


def _ids(
    render: Renderer, messages: Sequence[Message], text: str, truncated: bool
) -> tuple[list[int], list[int]]:
    rendered = render.completion(messages, text)
    ids = list(rendered.completion_ids)
    if truncated and len(ids) > 1 and ids[-1] == render.end_id:
        ids.pop()
    return rendered.prompt_ids, ids
