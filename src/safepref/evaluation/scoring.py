"""Log-likelihoods of completions in batches that a log survives, through the log-prob engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safepref.data.records import content_id
from safepref.evaluation.samples import ResumeLog
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine

CPU_BUDGET = 2048
ACCELERATOR_BUDGET = 16384
"""Tokens of one batch: what keeps the hardware busy and lets progress and the log advance."""

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]
"""A context and a continuation."""
Answer = tuple[float, bool]
"""Summed log-prob of the continuation in nats, and whether greedy decoding would give it."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What is run, and the pairs that its completions answer."""

    row: TokenRow
    pairs: tuple[Pair, ...]


class PairScorer:
    """Scores (context, continuation) pairs of token ids under a causal LM.

    A context is run once for all its continuations. The batches are fixed by the whole list of pairs, so a
    continued call computes the same ones as an undisturbed one.

    Args:
        model: a transformers causal LM, adapters as they are set.
        max_length: the model's longest input in tokens; of a longer pair the start is cut off.
        policy_id: names the weights in the log.
        log: finished pairs; batches whose pairs are all in it are not run again.
        on_done: called with the number of pairs that each batch finished.
        token_budget: tokens of one batch; None goes by the device.
    """

    def __init__(
        self,
        model: Any,
        max_length: int,
        *,
        policy_id: str = "",
        log: ResumeLog | None = None,
        on_done: Callable[[int], None] | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.model = model
        self.max_length = max_length
        self.policy_id = policy_id
        self.log = log
        self.on_done = on_done
        on_cpu = next(model.parameters()).device.type == "cpu"
        self.token_budget = token_budget or (CPU_BUDGET if on_cpu else ACCELERATOR_BUDGET)

    @cached_property
    def engine(self) -> LogprobEngine:
        """Scores the pairs; its self-test runs on the model as it is now."""
        return LogprobEngine(self.model)

    def scores(self, wanted: Sequence[Pair]) -> list[Answer]:
        """The answer of each pair, in order; equal pairs are run once."""
        copies = Counter(wanted)
        done: dict[Pair, Answer] = {}
        for batch in self._batches(copies):
            pairs = [pair for group in batch for pair in group.pairs]
            scored = self._logged(pairs, batch)
            done.update(zip(pairs, scored, strict=True))
            if self.on_done is not None:
                self.on_done(sum(copies[pair] for pair in pairs))
        return [done[pair] for pair in wanted]

    def _logged(self, pairs: Sequence[Pair], batch: Sequence[_Group]) -> list[Answer]:
        """A batch's answers from the log, or run whole and logged."""
        if self.log is None:
            return self._score(batch)
        keys = [content_id(self.policy_id, str(c), str(t), self.engine.graph) for c, t in pairs]
        if not all(key in self.log.rows for key in keys):
            self.log.append(
                {"key": key, "logprob": logprob, "greedy": greedy}
                for key, (logprob, greedy) in zip(keys, self._score(batch), strict=True)
            )
        return [(self.log.rows[key]["logprob"], self.log.rows[key]["greedy"]) for key in keys]

    def _batches(self, pairs: Iterable[Pair]) -> Iterator[list[_Group]]:
        """All pairs, longest first, about a budget of tokens at a time; the same for the same pairs."""
        by_context: dict[Tokens, list[Pair]] = {}
        groups: list[_Group] = []
        for context, continuation in pairs:
            if len(context) + len(continuation) > self.max_length + 1:
                groups.append(_cut(context, continuation, self.max_length + 1))
            else:
                by_context.setdefault(context, []).append((context, continuation))
        for ones in by_context.values():
            groups += _rows(ones, self.token_budget)
        groups.sort(key=lambda group: (-group.row.span, group.pairs))
        batch: list[_Group] = []
        for group in groups:
            if batch and sum(g.row.span for g in batch) + group.row.span > self.token_budget:
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _score(self, batch: Sequence[_Group]) -> list[Answer]:
        """Answers in the order of groups and their pairs."""
        sums, greedy = self.engine.ranked([group.row for group in batch])
        return [
            (float(sums[at, k]), bool(greedy[at, k]))
            for at, group in enumerate(batch)
            for k in range(len(group.pairs))
        ]


def _rows(pairs: Sequence[Pair], budget: int) -> Iterator[_Group]:
    """The pairs of one context in rows of about a budget of tokens: an empty one may have thousands."""
    part: list[Pair] = []
    size = len(pairs[0][0])
    for pair in pairs:
        if part and size + len(pair[1]) > budget:
            yield _Group(TokenRow(pair[0], tuple(t for _, t in part)), tuple(part))
            part, size = [], len(pair[0])
        part.append(pair)
        size += len(pair[1])
    yield _Group(TokenRow(part[0][0], tuple(t for _, t in part)), tuple(part))


def _cut(context: Tokens, continuation: Tokens, room: int) -> _Group:
    """A pair of more than `room` tokens without its start; at least one token stays to predict from."""
    whole = (context + continuation)[-room:]
    at = max(1, len(whole) - len(continuation))
    return _Group(TokenRow(whole[:at], (whole[at:],)), ((context, continuation),))


def max_length(config: Any, tokenizer: Any) -> int:
    """The model's longest input in tokens; 2048 where nothing says."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = getattr(tokenizer, "model_max_length", math.inf)
    return int(limit) if limit < 1e9 else 2048
