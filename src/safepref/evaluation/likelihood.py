"""Log-likelihoods of continuations for lm-eval, with each context read once for all its continuations.

lm-eval's own HFLM runs context and continuation afresh for every choice of a question. Here the contexts of a
batch are read once (left-padded, keys and values kept), and the choices follow on copies of that cache; the
first token of every choice, often the only one, needs no second pass. A self-test on the requests at hand
compares this with plain forwards, and a model that fails it (no cache, no positions) takes the plain path.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
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

CPU_BUDGET = 1024
ACCELERATOR_BUDGET = 16384
"""Padded tokens of one forward: what keeps the hardware busy and lets progress and the log advance."""
LOGIT_CELLS = 1 << 27
"""Logits held at once: 512 MB in fp32."""

Tokens = tuple[int, ...]
Request = tuple[tuple[str, str], list[int], list[int]]
Answer = tuple[float, bool]


@dataclass(frozen=True, slots=True)
class _Group:
    """A context and the continuations that are scored after it."""

    context: Tokens
    continuations: tuple[Tokens, ...]

    @property
    def longest(self) -> int:
        return max(map(len, self.continuations))


class PolicyLM(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
    """A causal language model as lm-eval wants it; usable in `lm_eval.simple_evaluate` too.

    Args:
        model: a transformers causal LM, adapters as they are set.
        tokenizer: its tokenizer.
        policy_id: names the weights in the log.
        log: finished requests; batches whose requests are all in it are not run again.
        on_done: called with the number of requests that each batch finished.
        token_budget: padded tokens of one forward; None goes by the device.
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
        self.path_note = ""
        self._shared: bool | None = None
        self._chat = False
        self._device = next(model.parameters()).device
        self.token_budget = token_budget or (CPU_BUDGET if self._device.type == "cpu" else ACCELERATOR_BUDGET)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._accepts = set(inspect.signature(inner.forward).parameters)
        self.max_length = _max_length(inner.config, tokenizer)
        self._vocabulary = int(getattr(inner.config.get_text_config(), "vocab_size", len(tokenizer)))

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

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Answer]:
        wanted = [(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        copies: dict[tuple[Tokens, Tokens], int] = {}
        for pair in wanted:
            copies[pair] = copies.get(pair, 0) + 1
        long = [pair for pair in copies if len(pair[0]) + len(pair[1]) > self.max_length + 1]
        short = [pair for pair in copies if len(pair[0]) + len(pair[1]) <= self.max_length + 1]
        groups = _grouped(short)
        if self._shared is None and groups:
            self._shared, self.path_note = self._self_test(groups)
        if not self._shared:
            long, groups = list(copies), []
        done: dict[tuple[Tokens, Tokens], Answer] = {}
        for batch in self._batches(groups):
            pairs = [(group.context, one) for group in batch for one in group.continuations]
            self._finish(pairs, copies, done, lambda batch=batch: self._score_shared(batch))  # type: ignore[misc]
        for rows in self._plain_batches(long):
            self._finish(rows, copies, done, lambda rows=rows: self._score_plain(rows))  # type: ignore[misc]
        return [done[pair] for pair in wanted]

    def _finish(
        self,
        pairs: Sequence[tuple[Tokens, Tokens]],
        copies: dict[tuple[Tokens, Tokens], int],
        done: dict[tuple[Tokens, Tokens], Answer],
        score: Callable[[], list[Answer]],
    ) -> None:
        """Take a batch from the log, or run it whole and log it."""
        if self.log is None:
            scored = score()
        else:
            keys = [content_id(self.policy_id, str(c), str(t), str(self._shared)) for c, t in pairs]
            if not all(key in self.log.rows for key in keys):
                self.log.append(
                    {"key": key, "logprob": logprob, "greedy": greedy}
                    for key, (logprob, greedy) in zip(keys, score(), strict=True)
                )
            scored = [(self.log.rows[key]["logprob"], self.log.rows[key]["greedy"]) for key in keys]
        done.update(zip(pairs, scored, strict=True))
        if self.on_done is not None:
            self.on_done(sum(copies[pair] for pair in pairs))

    def _batches(self, groups: Sequence[_Group]) -> Iterator[list[_Group]]:
        """Groups of like length, within the budget of context tokens and of choice tokens."""
        budget = min(self.token_budget, max(1, LOGIT_CELLS // self._vocabulary))
        ordered = sorted(groups, key=lambda g: (-len(g.context), -g.longest, g.context))
        batch: list[_Group] = []
        for group in ordered:
            trial = [*batch, group]
            rows = sum(len(g.continuations) for g in trial)
            if batch and (
                len(trial) * len(trial[0].context) > self.token_budget
                or rows * max(g.longest for g in trial) > budget
            ):
                yield batch
                trial = [group]
            batch = trial
        if batch:
            yield batch

    def _plain_batches(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> Iterator[list[tuple[Tokens, Tokens]]]:
        budget = min(self.token_budget, max(1, LOGIT_CELLS // self._vocabulary))
        ordered = sorted(pairs, key=lambda p: (-(len(p[0]) + len(p[1])), p))
        start = 0
        while start < len(ordered):
            size = max(1, budget // (len(ordered[start][0]) + len(ordered[start][1])))
            yield ordered[start : start + size]
            start += size

    def _call(self, ids: torch.Tensor, **options: Any) -> Any:
        return self.model(
            input_ids=ids, **{name: value for name, value in options.items() if name in self._accepts}
        )

    def _score_shared(self, groups: Sequence[_Group]) -> list[Answer]:
        """Contexts once, then all continuations on the cache; answers in the order of groups and choices."""
        width = max(len(group.context) for group in groups)
        ids = self._tensor([[0] * (width - len(g.context)) + list(g.context) for g in groups])
        mask = self._tensor([[0] * (width - len(g.context)) + [1] * len(g.context) for g in groups])
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        out = self._call(ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        rows = [(at, one) for at, group in enumerate(groups) for one in group.continuations]
        place = self._tensor([at for at, _ in rows])
        first = self._tensor([one[0] for _, one in rows])
        opening = _widen(out.logits[:, -1])
        opening_best = opening.argmax(-1)[place]
        # Summed in fp64 on the CPU: not every device has it.
        total = (opening[place, first] - opening.logsumexp(-1)[place]).cpu().double()
        greedy = opening_best == first
        more = [i for i, (_, one) in enumerate(rows) if len(one) > 1]
        if more:
            chosen = self._tensor(more)
            cache = out.past_key_values
            cache.batch_select_indices(place[chosen])
            tails = [rows[i][1] for i in more]
            gained, equal = self._score_tails(tails, mask[place[chosen]], cache)
            total[more] += gained
            greedy[chosen] &= equal
        return [(float(t), bool(g)) for t, g in zip(total.tolist(), greedy.tolist(), strict=True)]

    def _score_tails(
        self, tails: Sequence[Tokens], context_mask: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums (R,) fp64 on the CPU and greedy flags (R,) of every token but the first, given the cache."""
        width = max(map(len, tails)) - 1
        inputs = self._tensor([list(t[:-1]) + [0] * (width - len(t) + 1) for t in tails])
        targets = self._tensor([list(t[1:]) + [0] * (width - len(t) + 1) for t in tails])
        real = self._tensor([[1] * (len(t) - 1) + [0] * (width - len(t) + 1) for t in tails])
        positions = context_mask.sum(-1, keepdim=True) + torch.arange(width, device=self._device)
        out = self._call(
            inputs,
            attention_mask=torch.cat([context_mask, real], dim=1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return _token_sums(out.logits, targets, real)

    def _score_plain(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[Answer]:
        """Context and continuation in one forward, right-padded; too long ones lose their start."""
        inputs, answers = [], []
        for context, continuation in pairs:
            whole = (context + continuation)[-(self.max_length + 1) :]
            inputs.append(whole[:-1])
            answers.append(
                continuation[-len(whole) + 1 :] if len(continuation) >= len(whole) else continuation
            )
        width = max(map(len, inputs))
        ids = self._tensor([list(row) + [0] * (width - len(row)) for row in inputs])
        out = self._call(ids, use_cache=False)
        scored: list[Answer] = []
        for at, (row, answer) in enumerate(zip(inputs, answers, strict=True)):
            logits = out.logits[at : at + 1, len(row) - len(answer) : len(row)]
            targets = self._tensor([list(answer)])
            total, greedy = _token_sums(logits, targets, torch.ones_like(targets))
            scored.append((float(total[0]), bool(greedy[0])))
        return scored

    def _self_test(self, groups: Sequence[_Group]) -> tuple[bool, str]:
        """Whether shared contexts give what plain forwards give, on shortened requests of unlike lengths."""
        ordered = sorted(groups, key=lambda g: (len(g.context), g.context))
        picked = {id(g): g for g in (ordered[0], ordered[-1])}.values()
        sample = [
            _Group(g.context[-24:], tuple(dict.fromkeys(one[:8] for one in g.continuations[:3])))
            for g in picked
        ]
        sample[0] = _Group(sample[0].context[-7:], sample[0].continuations)
        try:
            shared = self._score_shared(sample)
            plain = self._score_plain([(g.context, one) for g in sample for one in g.continuations])
        except (
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
            NotImplementedError,
            IndexError,
        ) as error:
            reason = " ".join(str(error).split())[:120]
            return False, f"each choice is read with its context (shared contexts failed: {reason})"
        exact = next(self.model.parameters()).dtype in (torch.float32, torch.float64)
        allowed = 1e-3 if exact else 0.1
        worst = max(abs(a - b) / max(1.0, abs(b)) for (a, _), (b, _) in zip(shared, plain, strict=True))
        if not worst <= allowed:
            return False, f"each choice is read with its context (shared contexts differ by {worst:.2g})"
        return True, "each context is read once for all its choices"

    def _tensor(self, rows: Any) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._device)

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
            ids = self._tensor([self.tok_encode(context)[-max(1, self.max_length - room) :]])
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


def _grouped(pairs: Sequence[tuple[Tokens, Tokens]]) -> list[_Group]:
    by_context: dict[Tokens, list[Tokens]] = {}
    for context, continuation in pairs:
        by_context.setdefault(context, []).append(continuation)
    return [_Group(context, tuple(ones)) for context, ones in by_context.items()]


def _token_sums(
    logits: torch.Tensor, targets: torch.Tensor, real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probs (R,) fp64 on the CPU, and if every real target is the argmax; logits (R, L, V)."""
    wide = _widen(logits)
    picked = wide.gather(-1, targets[..., None])[..., 0] - wide.logsumexp(-1)
    keep = real.bool()
    sums = picked.masked_fill(~keep, 0.0).cpu().double().sum(-1)
    equal = ((wide.argmax(-1) == targets) | ~keep).all(-1)
    return sums, equal


def _widen(logits: torch.Tensor) -> torch.Tensor:
    """Half precision as fp32: a log-softmax over a vocabulary needs it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _max_length(config: Any, tokenizer: Any) -> int:
    """The model's longest input in tokens; 2048 where nothing says."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = getattr(tokenizer, "model_max_length", math.inf)
    return int(limit) if limit < 1e9 else 2048
