"""Log-likelihoods of continuations for lm-eval, through the log-prob engine.

lm-eval's own HFLM runs context and continuation afresh for every choice of a question, padded. Here a context
is run once for all its continuations, packed, and logits are computed at scored positions only; the engine's
self-test finds models for which that is not exact, and pads for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from safepref.data.render import renderer
from safepref.evaluation.samples import ResumeLog
from safepref.evaluation.scoring import Answer, PairScorer, max_length
from safepref.logprobs.engine import LogprobEngine

Request = tuple[tuple[str, str], list[int], list[int]]


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
        self._token_budget = token_budget
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.max_length = max_length(inner.config, tokenizer)

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

    @property
    def engine(self) -> LogprobEngine:
        """What scores the requests."""
        return self._scorer.engine

    @cached_property
    def _scorer(self) -> PairScorer:
        """Made on the model as it is when the first request comes."""
        return PairScorer(
            self.model,
            self.max_length,
            policy_id=self.policy_id,
            log=self.log,
            token_budget=self._token_budget,
        )

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[Answer]:
        self._scorer.on_done = self.on_done
        return self._scorer.scores([(tuple(context), tuple(target)) for _, context, target in requests])

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
