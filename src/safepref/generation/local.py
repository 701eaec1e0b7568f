"""Generation with a transformers model on this machine.

Prompts are deduplicated, sorted by length and decoded in batches, as large as memory allows: a step's cost
hardly grows with its rows until there are some hundreds. What all of a batch begin with is read once, and
rows leave the batch when they have ended their turn. Sampling draws from one random stream for each
prompt, keyed by seed and token ids, so an answer does not depend on which other prompts share its batch.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import DynamicCache

from safepref.data.limits import Limits, Truncation, fit_prompt
from safepref.data.records import Message
from safepref.data.render import render_prompt, renderer
from safepref.errors import InputError
from safepref.generation.base import PROMPT_LIMIT, Completion, Progress, Sampling, evenly
from safepref.generation.cache import (
    has_plain_attention,
    read_once,
    repeated,
    roomy_cache,
    stacked,
    token_bytes,
)
from safepref.hardware import memory_bytes, release_memory
from safepref.logprobs.packing import shared_beginning
from safepref.logprobs.route import unwrap
from safepref.models import LoadedModel
from safepref.progress import console

KEPT = 0.9
"""Rows that have ended stay in the batch until at most this share of it is still going."""
READ_TOKENS = 2048
"""Prompt tokens run together, padding included."""
CACHE_SHARE = 8
"""The keys and values of a batch may take one part in so many of the memory that there is."""
UNGROUPED_ROWS = 64
"""Most rows of a model whose prompts cannot be read in groups."""
TYPICAL_TOKENS = 512
"""A long prompt and its answer."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One drawn answer as text and as token ids, its end of turn among them, with the prompt's ids."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    completion: Completion


class LocalEngine:
    """Answers conversations with a loaded model. Greedy decoding equals transformers' `generate`.

    Args:
        loaded: model and tokenizer; an adapter may be attached or scaled between calls.
        batch_size: most rows decoded together; fewer where their keys and values would fill more than an
            eighth of the memory, and where a model has other layers than plain attention.
        system: system prompt put before conversations that have none; null leaves the template's own.
        prompt_limit: longest prompt in tokens, where the model has room for as many and for the answer;
            longer ones keep their first token and their end, and are counted once in a note.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        batch_size: int = 32,
        system: str | None = None,
        prompt_limit: int = PROMPT_LIMIT,
    ) -> None:
        self.loaded = loaded
        self.batch_size = batch_size
        self.system = system
        self.prompt_limit = prompt_limit
        self.name = f"local:{loaded.id}"
        self._told = False
        base = unwrap(loaded.model)
        if "past_key_values" not in inspect.signature(base.forward).parameters:
            raise InputError(
                f"{loaded.id}: {type(base).__name__} keeps no keys and values, so it cannot be decoded here; "
                "give a model with attention"
            )
        self._plain = has_plain_attention(loaded.model)
        self._token_bytes = token_bytes(loaded.model)

    @property
    def block(self) -> int:
        """Conversations that are worth handing over at once."""
        return self._rows(TYPICAL_TOKENS)

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One completion for each conversation, in the order given.

        Raises:
            InputError: a conversation that the chat template refuses, or more new tokens than the model has
                positions.
        """
        return self.continued(self._prompts(conversations, sampling.max_new_tokens), sampling, progress)

    def continued(
        self, prompts: Sequence[tuple[int, ...]], sampling: Sampling, progress: Progress | None = None
    ) -> list[Completion]:
        """What the model writes after each of these token ids, which are taken as they are."""
        copies: dict[tuple[int, ...], int] = {}
        for ids in prompts:
            copies[ids] = copies.get(ids, 0) + 1
        order = sorted(copies, key=lambda ids: (-len(ids), ids))
        done: dict[tuple[int, ...], list[int]] = {}
        start = 0
        while start < len(order):
            most = self._rows(len(order[start]) + sampling.max_new_tokens)
            batch = order[start : start + evenly(len(order) - start, most)]
            start += len(batch)
            asked = sum(copies[ids] for ids in batch)
            on_step = _in_counts(asked, progress)
            done |= dict(zip(batch, self._decode(batch, sampling, on_step), strict=True))
        release_memory()  # each batch's keys and values have another size and leave holes of theirs
        return [self._completion(done[ids], sampling) for ids in prompts]

    def samples(
        self,
        conversations: Sequence[Sequence[Message]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Sampled]:
        """An answer to each conversation from the stream of its own seed, so that one asked often is answered
        differently each time; `sampling.seed` has no effect. Raises as `generate` does."""
        prompts = self._prompts(conversations, sampling.max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), at))
        drawn: dict[int, list[int]] = {}
        start = 0
        while start < len(order):
            most = self._rows(len(prompts[order[start]]) + sampling.max_new_tokens)
            batch = order[start : start + evenly(len(order) - start, most)]
            start += len(batch)
            on_step = _in_counts(len(batch), progress)
            own = [seeds[at] for at in batch]
            tokens = self._decode([prompts[at] for at in batch], sampling, on_step, own)
            drawn |= dict(zip(batch, tokens, strict=True))
        release_memory()
        return [
            Sampled(prompt, tuple(drawn[at]), self._completion(drawn[at], sampling))
            for at, prompt in enumerate(prompts)
        ]

    def _rows(self, length: int) -> int:
        """Rows of `length` tokens that are decoded together; the same on every run on this machine."""
        fit = memory_bytes(self.loaded.device) // CACHE_SHARE // (length * self._token_bytes)
        most = self.batch_size if self._plain else min(self.batch_size, UNGROUPED_ROWS)
        return max(1, min(most, fit))

    def _prompts(self, conversations: Sequence[Sequence[Message]], room: int) -> list[tuple[int, ...]]:
        """Token ids within the limit, with `room` tokens left for the answer."""
        limits, cut = Limits(max_prompt=self._limit(room)), Truncation()
        tokenizer = self.loaded.tokenizer
        rendered = [fit_prompt(render_prompt(tokenizer, m, self.system), limits, cut) for m in conversations]
        if cut.prompts_cut and not self._told:
            self._told = True
            console().print(
                f"  {cut.prompts_cut} of {len(rendered)} prompts are longer than {limits.max_prompt} tokens: "
                "each keeps its first token and its end"
            )
        return [tuple(ids) for ids in rendered if ids is not None]

    def _limit(self, room: int) -> int:
        config = self.loaded.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions <= 0:
            return self.prompt_limit
        if positions - room < 2:
            raise InputError(
                f"{self.loaded.id}: has {positions} positions, no room for a prompt and {room} new tokens; "
                "ask for shorter answers"
            )
        return min(self.prompt_limit, positions - room)

    def _completion(self, answer: list[int], sampling: Sampling) -> Completion:
        ended = bool(answer) and answer[-1] in self._stops()
        text = self.loaded.tokenizer.decode(answer[:-1] if ended else answer, skip_special_tokens=True)
        truncated = not ended and len(answer) >= sampling.max_new_tokens
        return Completion(str(text).strip(), len(answer), truncated)

    def _stops(self) -> set[int]:
        config = getattr(self.loaded.model, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        stops = set(named) if isinstance(named, list) else {named}
        stops.add(self.loaded.tokenizer.eos_token_id)
        # A base model's EOS ends a document; its turns end in what the chat template writes.
        stops.add(renderer(self.loaded.tokenizer, self.system).end_id)
        return {token for token in stops if token is not None}

    @torch.inference_mode()
    def _decode(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        on_step: Callable[[float], None],
        seeds: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """New tokens of each prompt. Rows that have ended are dropped some at a time: each drop copies.

        Args:
            on_step: called after each token with the share of the work that is done, 1 at the end.
            seeds: one for each prompt; null takes the sampling's for all.
        """
        device = self.loaded.device
        choose = _chooser(prompts, sampling, seeds)
        stops = self._stops()
        answers: list[list[int]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        ended: set[int] = set()
        logits, cache, mask = self._read(prompts, sampling.max_new_tokens)
        positions = mask.sum(-1, keepdim=True) - 1
        for step in range(1, sampling.max_new_tokens + 1):
            tokens = choose(logits, alive)
            for row, token in zip(alive, tokens, strict=True):
                if row not in ended:
                    answers[row].append(token)
                    if token in stops:
                        ended.add(row)
            share = len(ended) / len(prompts)
            on_step(share + (1 - share) * step / sampling.max_new_tokens)
            if len(ended) == len(prompts) or step == sampling.max_new_tokens:
                break
            keep = [place for place, row in enumerate(alive) if row not in ended]
            if len(keep) <= KEPT * len(alive):
                index = torch.tensor(keep, device=device)
                # Recurrent layers of hybrid models know only the second way.
                (cache.batch_select_indices if self._plain else cache.reorder_cache)(index)
                mask, positions = mask[index], positions[index]
                alive = [alive[place] for place in keep]
                tokens = [tokens[place] for place in keep]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = positions + 1
            logits, cache = self._run(torch.tensor(tokens, device=device)[:, None], mask, positions, cache)
        return answers

    def _read(self, prompts: Sequence[tuple[int, ...]], new: int) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """The next token's logits (B, V), the cache and the mask (B, S) after the prompts.

        With plain attention, what all of them begin with is run once, the rest in groups of like length,
        since padding is run too.
        """
        if not self._plain:
            return self._read_group(prompts, 0, DynamicCache(config=self.loaded.model.config))
        shared = shared_beginning(prompts)
        model, width = self.loaded.model, max(map(len, prompts))
        beginning = read_once(model, prompts[0][:shared]) if shared else None
        logits, caches, masks = [], [], []
        groups = _groups(prompts, shared)
        for group in groups:
            room = max(map(len, group)) if len(groups) > 1 else width + new
            cache = repeated(model, beginning, len(group), room) if beginning else roomy_cache(model, room)
            after, cache, mask = self._read_group(group, shared, cache)
            logits.append(after)
            caches.append(cache)
            masks.append(F.pad(mask, (width - mask.shape[1], 0)))
        whole = stacked(model, caches, width + new) if len(caches) > 1 else caches[0]
        return torch.cat(logits), whole, torch.cat(masks)

    def _read_group(
        self, prompts: Sequence[tuple[int, ...]], shared: int, cache: Any
    ) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Run prompts, whose first `shared` tokens the cache has read, padded on the left behind these."""
        device, pad = self.loaded.device, self.loaded.tokenizer.pad_token_id or 0
        width = max(map(len, prompts)) - shared
        own = [list(p[shared:]) for p in prompts]
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in own], device=device)
        mask = torch.tensor(
            [[1] * shared + [0] * (width - len(p)) + [1] * len(p) for p in own], device=device
        )
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, shared:]
        logits, cache = self._run(ids, mask, positions, cache)
        return logits, cache, mask

    def _run(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        """Logits (B, V) fp32 behind the last of the new tokens, and the cache that has read them."""
        out = self.loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float(), out.past_key_values


def _groups(prompts: Sequence[tuple[int, ...]], shared: int) -> list[Sequence[tuple[int, ...]]]:
    """Neighbours that are run together: at most `READ_TOKENS` with their padding, if the rows allow."""
    groups, start, widest = [], 0, 0
    for at, prompt in enumerate(prompts):
        widest = max(widest, len(prompt) - shared)
        if at > start and (at + 1 - start) * widest > READ_TOKENS:
            groups.append(prompts[start:at])
            start, widest = at, len(prompt) - shared
    groups.append(prompts[start:])
    return groups


def _in_counts(total: int, progress: Progress | None) -> Callable[[float], None]:
    """Turns the share of a batch of `total` conversations that is done into counts for `progress`."""
    done = 0

    def on_step(share: float) -> None:
        nonlocal done
        new = math.floor(share * total + 1e-9) - done
        if progress is not None and new > 0:
            done += new
            progress(new)

    return on_step


def _chooser(
    prompts: Sequence[tuple[int, ...]], sampling: Sampling, seeds: Sequence[int] | None = None
) -> Callable[[torch.Tensor, Sequence[int]], list[int]]:
    """The next tokens from logits (B, V) fp32, for the given rows."""
    if sampling.temperature == 0:

        def greedy(logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
            return list(map(int, logits.argmax(-1).tolist()))

        return greedy
    own = [sampling.seed] * len(prompts) if seeds is None else seeds
    streams = [_stream(ids, seed) for ids, seed in zip(prompts, own, strict=True)]

    def sampled(logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        chances = (logits / sampling.temperature).softmax(-1)
        order = None
        if sampling.top_p < 1:  # sorting the vocabulary costs more than the model's own step
            chances, order = chances.sort(dim=-1, descending=True, stable=True)
            # The smallest set whose mass reaches top_p, always with its first member.
            chances = torch.where(chances.cumsum(-1) - chances < sampling.top_p, chances, 0.0)
        edges = chances.cumsum(-1)
        draws = torch.tensor([streams[row].random() for row in rows], device=logits.device)
        place = torch.searchsorted(edges, draws[:, None] * edges[:, -1:]).clamp_max(logits.shape[-1] - 1)
        tokens = place if order is None else order.gather(-1, place)
        return list(map(int, tokens[:, 0].tolist()))

    return sampled


def _stream(ids: tuple[int, ...], seed: int) -> np.random.Generator:
    digest = hashlib.sha256(np.asarray((seed, *ids), dtype=np.int64).tobytes()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
