"""Log-likelihoods of continuations for lm-eval, through the log-prob engine.

lm-eval's own HFLM runs context and continuation afresh for every choice of a question, padded. Here a context
is run once for all its continuations, packed, and logits are computed at scored positions only; the engine's
self-test finds models for which that is not exact, and pads for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from safepref.data.records import content_id
from safepref.data.render import renderer
from safepref.evaluation.samples import ResumeLog
from safepref.logprobs import TokenRow
from safepref.logprobs.engine import LogprobEngine

CPU_BUDGET = 2048
ACCELERATOR_BUDGET = 16384
"""Tokens of one batch: what keeps the hardware busy and lets progress and the log advance."""

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]
"""A context and a continuation."""
Request = tuple[tuple[str, str], list[int], list[int]]
Answer = tuple[float, bool]


@dataclass(frozen=True, slots=True)
class _Group:
    """What is run, and the requests that its completions answer."""

    row: TokenRow
    pairs: tuple[Pair, ...]


class PolicyLM(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
    """A causal language model as lm-eval wants it; usable in `lm_eval.simple_evaluate` too.

    Args:
        model: a transformers causal LM, adapters as they are set.
        tokenizer: its tokenizer.
        policy_id: names the weights in the log.
        log: finished requests; batches whose requests are all in it are not run again.
        on_done: called with the number of requests that each batch finished.
        token_budget: tokens of one batch; None goes by the device.
    """

    backend = "causal"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        policy_id: str = "",
        log: ResumeLog | None = None,
        on_done: Callable[[int], None] | None = None,
        token_budget: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.policy_id = policy_id
        self.log = log
        self.on_done = on_done
        self._chat = False
        self._device = next(model.parameters()).device
        self.token_budget = token_budget or (CPU_BUDGET if self._device.type == "cpu" else ACCELERATOR_BUDGET)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.max_length = _max_length(inner.config, tokenizer)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by: BOS, else EOS."""
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, for lm-eval's cache keys."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A dialogue as the model's own template writes it, its special tokens marked for `tok_encode`."""
        self._chat = True
        return renderer(self.tokenizer).written(chat_history, answer=not add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids by lm-eval's rule: the tokenizer's default, but never a second BOS.

        Texts are data: special tokens in them are only text, but for those that `apply_chat_template` wrote.
        """
        before, behind = self._added
        bos = self.tokenizer.bos_token
        begins = add_special_tokens is None and bool(before) and bool(bos) and string.startswith(bos)
        text = string[len(bos) :] if begins else string
        ids = renderer(self.tokenizer).text(text, opening=bos if begins else "", marked=self._chat)
        if add_special_tokens is False or (add_special_tokens is None and ids[: len(before)] == before):
            return ids
        return [*before, *ids, *behind]

    @cached_property
    def _added(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a text by default."""
        whole, bare = self.tokenizer.encode("a"), self.tokenizer.encode("a", add_special_tokens=False)
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return list(whole[:at]), list(whole[at + len(bare) :])

    def continuation_length(self, context: str, continuation: str) -> int:
        """Tokens of `continuation` that are scored after `context`."""
        return len(self._encode_pair(context, continuation)[1])

    @cached_property
    def engine(self) -> LogprobEngine:
        """Scores the requests; its self-test runs on the model as it is now."""
        return LogprobEngine(self.model)

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Answer]:
        wanted = [(tuple(context), tuple(continuation)) for _, context, continuation in requests]
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
        """All requests, longest first, about a budget of tokens at a time; the same for the same requests."""
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
        """Answers in the order of groups and their requests."""
        sums, greedy = self.engine.ranked([group.row for group in batch])
        return [
            (float(sums[at, k]), bool(greedy[at, k]))
            for at, group in enumerate(batch)
            for k in range(len(group.pairs))
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of the model's length that predict each token once."""
        windows: list[Request] = []
        owners: list[int] = []
        for at, request in enumerate(requests):
            text = request.args[0]
            for pair in get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                context, continuation = make_disjoint_window(pair)
                windows.append(((text, ""), list(context), list(continuation)))
                owners.append(at)
        totals = [0.0] * len(requests)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += logprob
        return totals

    @torch.inference_mode()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, each cut before the first of its stop texts."""
        answers = []
        for request in requests:
            context, options = request.args
            until = options.get("until") or []
            stops = [until] if isinstance(until, str) else list(until)
            room = int(options.get("max_gen_toks", 256))
            kept = self.tok_encode(context)[-max(1, self.max_length - room) :]
            ids = torch.tensor([kept], device=self._device)
            pad = self.tokenizer.pad_token_id
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                do_sample=False,
                pad_token_id=pad if pad is not None else self.eot_token_id,
            )
            text = str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
            cuts = [found for stop in stops if stop and (found := text.find(stop)) >= 0]
            answers.append(text[: min(cuts)] if cuts else text)
        return answers


def _rows(pairs: Sequence[Pair], budget: int) -> Iterator[_Group]:
    """The requests of one context in rows of about a budget of tokens: an empty one may have thousands."""
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
    """A request of more than `room` tokens without its start; at least one token stays to predict from."""
    whole = (context + continuation)[-room:]
    at = max(1, len(whole) - len(continuation))
    return _Group(TokenRow(whole[:at], (whole[at:],)), ((context, continuation),))


def _max_length(config: Any, tokenizer: Any) -> int:
    """The model's longest input in tokens; 2048 where nothing says."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = getattr(tokenizer, "model_max_length", math.inf)
    return int(limit) if limit < 1e9 else 2048
