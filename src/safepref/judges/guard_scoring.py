"""What a guard would write next: probabilities after many prompts, one forward pass a batch.

The keys and values of what all prompts begin with, a guard's policy text as a rule, are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safepref.errors import InputError
from safepref.judges.words import Kinds, word_written

if TYPE_CHECKING:
    from safepref.models import LoadedModel

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class VerdictTokens:
    """The tokens by which a model's verdict begins.

    `sets`: of each kind's words, their first tokens. `partial`: those of them that only begin a word.
    `longest`: tokens of the longest word.
    """

    kinds: Kinds
    sets: Sequence[frozenset[int]]
    partial: frozenset[int]
    longest: int


class Scorer:
    """Reads next-token probabilities off a model.

    Args:
        loaded: model and tokenizer.
        batch_size: prompts in one forward pass.
    """

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        from safepref.generation.cache import has_plain_attention

        self._loaded = loaded
        self._batch_size = batch_size
        self._shares = has_plain_attention(loaded.model)
        self._read: dict[tuple[int, ...], Any] = {}

    def masses(
        self, prompts: Sequence[Ids], sets: Sequence[frozenset[int]], start: Ids = ()
    ) -> list[list[float]]:
        """For each prompt the probability that its next token is of each set, `(N, len(sets))`.

        Args:
            start: what the prompts begin with; its keys and values are kept for the next call.
        """
        return [masses for masses, _ in self._next(prompts, sets, start)]

    def verdicts(
        self, prompts: Sequence[Ids], tokens: VerdictTokens, ends: frozenset[int], start: Ids = ()
    ) -> list[tuple[list[float], str]]:
        """The probability of each kind of words as the next, `(N, len(sets))`, and what was written instead.

        The latter is "" where nothing speaks against the former: a likeliest token that only begins a word
        must go on to it, greedily.

        Args:
            ends: tokens that end a turn.
            start: as in `masses`.
        """
        given = self._next(prompts, tokens.sets, start)
        begun = [i for i, (_, likeliest) in enumerate(given) if likeliest in tokens.partial]
        firsts = [given[i][1] for i in begun]
        rests = self._continued(
            [[*prompts[i], first] for i, first in zip(begun, firsts, strict=True)], ends, tokens.longest
        )
        otherwise = [""] * len(given)
        for i, first, (rest, _) in zip(begun, firsts, rests, strict=True):
            text = self._text([first, *rest])
            if word_written(text, tokens.kinds) is None:
                otherwise[i] = text.strip()
        return [(masses, wrote) for (masses, _), wrote in zip(given, otherwise, strict=True)]

    def _next(
        self, prompts: Sequence[Ids], sets: Sequence[frozenset[int]], start: Ids
    ) -> list[tuple[list[float], int]]:
        """For each prompt the probability that its next token is of each set, and the likeliest token."""
        found: list[tuple[list[float], int]] = [([], 0)] * len(prompts)
        start = tuple(start) if self._shares else ()
        sharing = [i for i, prompt in enumerate(prompts) if start and tuple(prompt[: len(start)]) == start]
        rest = sorted(set(range(len(prompts))).difference(sharing))
        for members, beginning in ((sharing, start), (rest, ())):
            for batch in self._batches(members, prompts):
                logits = self._logits([prompts[i][len(beginning) :] for i in batch], beginning)
                probabilities = logits.softmax(-1)
                for row, i in enumerate(batch):
                    masses = [float(probabilities[row, sorted(ids)].sum()) for ids in sets]
                    found[i] = masses, int(logits[row].argmax())
        return found

    def _batches(self, members: Sequence[int], prompts: Sequence[Ids]) -> list[list[int]]:
        """Places in `prompts`, those of like length together."""
        order = sorted(members, key=lambda i: len(prompts[i]))
        return [order[at : at + self._batch_size] for at in range(0, len(order), self._batch_size)]

    def _logits(self, rows: Sequence[Ids], start: tuple[int, ...]) -> Any:
        """Next-token logits `(B, V)` fp32 after `start` and each row."""
        import torch

        from safepref.generation.cache import repeated

        model: Any = self._loaded.model
        ids, mask = self._padded(rows)
        more: dict[str, Any] = {}
        if start:
            cache = repeated(model, self._start(start), len(rows), len(start) + ids.shape[1])
            mask = torch.cat([mask.new_ones(len(rows), len(start)), mask], dim=1)
            more = {"past_key_values": cache, "use_cache": True}
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, len(start) :]
        with torch.inference_mode():
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **more)
        return out.logits[:, -1].float()

    def _start(self, start: tuple[int, ...]) -> Any:
        from safepref.generation.cache import read_once

        if start not in self._read:
            self._read[start] = read_once(self._loaded.model, start)
        return self._read[start]

    def _padded(self, rows: Sequence[Ids]) -> tuple[Any, Any]:
        import torch

        length = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for k, row in enumerate(rows):
            ids[k, length - len(row) :] = torch.tensor(row)
            mask[k, length - len(row) :] = 1
        return ids.to(self._loaded.device), mask.to(self._loaded.device)

    def written(self, prompts: Sequence[Ids], ends: frozenset[int], most: int) -> list[str]:
        """What the model writes greedily after each prompt, up to one of `ends`; "…" behind what was cut."""
        # A line that did not end may end in half a name.
        return [
            self._text(new).strip() + ("…" if cut else "")
            for new, cut in self._continued(prompts, ends, most)
        ]

    def _text(self, ids: Ids) -> str:
        tokenizer: Any = self._loaded.tokenizer
        return str(tokenizer.decode(list(ids)))

    def _continued(
        self, prompts: Sequence[Ids], ends: frozenset[int], most: int
    ) -> list[tuple[list[int], bool]]:
        """The ids that the model writes greedily after each prompt, and whether they were cut at `most`."""
        import torch

        found: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
        for batch in self._batches(range(len(prompts)), prompts):
            ids, mask = self._padded([prompts[i] for i in batch])
            with torch.inference_mode():
                made = self._loaded.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=most,
                    do_sample=False,
                    eos_token_id=sorted(ends),
                    pad_token_id=min(ends),
                )
            for row, i in enumerate(batch):
                new = made[row, ids.shape[1] :].tolist()
                stop = next((at for at, token in enumerate(new) if token in ends), len(new))
                found[i] = new[:stop], stop == len(new)
        return found


def first_tokens(name: str, model_id: str, words: Mapping[str, Sequence[Ids]]) -> dict[str, frozenset[int]]:
    """The first token of each of a kind's words, by kind.

    Raises:
        InputError: two kinds begin with the same token, so that it could not tell one from the other.
    """
    found = {kind: frozenset(ids[0] for ids in spelled) for kind, spelled in words.items()}
    seen: dict[int, str] = {}
    for kind, ids in found.items():
        for token in ids:
            if (other := seen.setdefault(token, kind)) != kind:
                raise InputError(
                    f"judge {name}: {model_id} writes {other!r} and {kind!r} with the same first token; "
                    "it is not the model of this row"
                )
    return found
