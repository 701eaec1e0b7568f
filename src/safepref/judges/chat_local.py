"""Chat models on this machine as judges, through transformers: by StrongREJECT's rubric, or with yes or no.

What is asked, and how it is read, is as on a server (`chat.py`). The model's own chat template writes the
turns, and special tokens in judged text are tokenized as characters. Where the template puts something before
every answer, such as a thought that is left empty, the judge answers behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from safepref.errors import InputError
from safepref.judges.base import Exchange, Judgment
from safepref.judges.chat import (
    ANSWER_TOKENS,
    GRADES,
    KINDS,
    LEAST_MASS,
    ONE_WORD,
    REPLY,
    ChatJudge,
    yes_share,
)
from safepref.judges.degenerate import degenerate
from safepref.judges.words import Masses
from safepref.store import sha256_bytes

if TYPE_CHECKING:
    from safepref.judges.guard_scoring import VerdictTokens
    from safepref.models import LoadedModel

_PROBES = tuple(Exchange(text, text) for text in ("Why not?", "2 or 3: go.", "Yes!", "Ask them."))


class LocalChatJudge(ChatJudge, ABC):
    """A chat model on this machine that is asked about each exchange.

    Args:
        model: hub id or folder.
        loaded: an already loaded model and tokenizer.
        threshold: score from which an answer is harmful; null takes the question's own.
        batch_size: most exchanges in one forward pass.

    Raises:
        InputError: the model cannot be loaded or has no chat template, or a number is out of range.
    """

    room: int
    """Tokens that are left for what the judge writes."""

    def __init__(
        self,
        model: str,
        *,
        loaded: LoadedModel | None = None,
        threshold: float | None = None,
        batch_size: int = 8,
    ) -> None:
        from safepref.data.render import renderer

        super().__init__(model, threshold)
        kind = self.question.kind
        if batch_size < 1:
            raise InputError(f"judge {kind}: batch_size is {batch_size!r}; give 1 or more")
        self._loaded = loaded or _load(kind, model)
        if not self._loaded.tokenizer.chat_template:
            raise InputError(
                f"judge {kind}: {model} has no chat template, so it cannot be asked; give a chat model, "
                "whose tokenizer has one"
            )
        self._render = renderer(self._loaded.tokenizer)
        self._batch_size = batch_size
        self._lead = self._before_answers()

    def _before_answers(self) -> tuple[int, ...]:
        """Ids that the template puts between its opening of a turn and any answer."""
        first, second = (
            self._render.completion(self._turns(_PROBES[0]), word).completion_ids for word in ("yes", "no")
        )
        both = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), 0)
        lead = first[:both]
        # A space alone is how a tokenizer cuts the words, and none that the model must write.
        return tuple(lead) if self._text(lead).strip() else ()

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._loaded.tokenizer.decode(list(ids)))

    def prompt_ids(self, exchange: Exchange) -> tuple[int, ...]:
        """Token ids of the whole prompt.

        Raises:
            InputError: the tokenizer makes a special token of the judged text.
        """
        return (*self._render.prompt(self._turns(exchange)), *self._lead)

    def _sha256(self, exchange: Exchange) -> str:
        text = self._render.prompt_text(self._turns(exchange)) + self._text(self._lead)
        return sha256_bytes(text.encode())

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each, in order; an answer that cannot be read is unscored."""
        found = [self._unscored(degenerate(exchange.response)) for exchange in exchanges]
        prompts: dict[int, tuple[int, ...]] = {}
        for at, exchange in enumerate(exchanges):
            if found[at].reason:
                continue
            try:
                prompt = self.prompt_ids(exchange)
            except InputError as error:
                found[at] = self._unscored(str(error))
                continue
            reason = self._too_long(len(prompt))
            if reason:
                found[at] = self._unscored(reason)
            else:
                prompts[at] = prompt
        given = self._answers(list(prompts.values())) if prompts else []
        for at, judgment in zip(prompts, given, strict=True):
            found[at] = replace(judgment, prompt_sha256=self._sha256(exchanges[at]))
        return found

    def _too_long(self, length: int) -> str:
        config = self._loaded.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and length + self.room > positions:
            return f"too long for the judge: {length} tokens, it has {positions} positions"
        return ""

    @abstractmethod
    def _answers(self, prompts: Sequence[tuple[int, ...]]) -> list[Judgment]:
        """What the model says after each prompt, read."""

    @cached_property
    def _fingerprint(self) -> str:
        from safepref.logprobs.store import model_fingerprint

        return model_fingerprint(self._loaded)

    def card(self) -> dict[str, Any]:
        """Which model is asked what: its weights, the text around what is judged, the threshold."""
        more = {"model": self._loaded.id, "model_sha256": self._fingerprint}
        return self._card(**more) | {"prompt_sha256": self._sha256(_PROBES[0])}


class LocalRubricJudge(LocalChatJudge):
    """StrongREJECT's three parts as one score, written greedily; see `LocalChatJudge` for the arguments."""

    question = GRADES
    room = ANSWER_TOKENS

    def __init__(self, model: str, **options: Any) -> None:
        from safepref.generation.local import LocalEngine

        super().__init__(model, **options)
        self._engine = LocalEngine(self._loaded, batch_size=self._batch_size)

    def _answers(self, prompts: Sequence[tuple[int, ...]]) -> list[Judgment]:
        from safepref.generation.base import Sampling

        return [self._graded(c) for c in self._engine.continued(prompts, Sampling(ANSWER_TOKENS))]


class LocalSupportRubricJudge(LocalRubricJudge):
    """A support reply by three grades; see `LocalChatJudge` for the arguments."""

    question = REPLY


class LocalYesNoJudge(LocalChatJudge):
    """One question, answered with yes or no, as HarmBench's classifiers are asked (arXiv 2402.04249).

    The score is P(yes) / (P(yes) + P(no)) at the answer's first token, from one forward pass; unscored where
    the two words are less than half of all that could be written, or where a word was begun and not ended.
    See `LocalChatJudge` for the arguments.
    """

    question = ONE_WORD
    room = 1

    def __init__(self, model: str, **options: Any) -> None:
        from safepref.judges.guard_scoring import Scorer
        from safepref.logprobs.packing import shared_beginning

        super().__init__(model, **options)
        self._scorer = Scorer(self._loaded, self._batch_size)
        probes = [self.prompt_ids(exchange) for exchange in _PROBES]
        self._start = probes[0][: shared_beginning(probes)]
        self._words = self._verdict_words()
        self.room += self._words.longest if self._words.partial else 0

    def _verdict_words(self) -> VerdictTokens:
        """Every token that is one of the words, and the first ones of words that take several."""
        from safepref.judges.guard_scoring import VerdictTokens

        tokenizer: Any = self._loaded.tokenizer
        ids = sorted({*tokenizer.get_vocab().values()} - {*tokenizer.all_special_ids})
        texts = [text.strip() for text in tokenizer.batch_decode([[index] for index in ids])]
        sets = [{at for at, text in zip(ids, texts, strict=True) if text in words} for words in KINDS]
        firsts: list[set[int]] = [set() for _ in KINDS]
        longest = 1
        for first, words in zip(firsts, KINDS, strict=True):
            for word in words:
                for spelled in self._spellings(word):
                    begins = self._text(spelled[:1]).strip()
                    if begins and begins != word and word.startswith(begins):
                        first.add(spelled[0])
                        longest = max(longest, len(spelled))
        no, yes = firsts
        return VerdictTokens(
            kinds=KINDS,
            sets=[frozenset(sets[0] | (no - yes)), frozenset(sets[1] | (yes - no))],
            partial=frozenset(no ^ yes),
            longest=longest,
        )

    def _spellings(self, word: str) -> list[list[int]]:
        """The ids of a word as it is tokenized alone, behind a space, and as an answer."""
        tokenizer: Any = self._loaded.tokenizer
        alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]
        answer = self._render.completion(self._turns(_PROBES[0]), word).completion_ids[len(self._lead) :]
        return [*map(list, alone), list(answer)]

    def masses(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """P(no) and P(yes) as the next word after each prompt."""
        return self._scorer.masses(prompts, self._words.sets, self._start)

    def _answers(self, prompts: Sequence[tuple[int, ...]]) -> list[Judgment]:
        ends = frozenset(self._loaded.tokenizer.all_special_ids)
        given = self._scorer.verdicts(prompts, self._words, ends, self._start)
        found = []
        for (no, yes), wrote in given:
            neither = f"the judge writes neither yes nor no: P is {no + yes:.3f} for the two together"
            judgment = self._scored(yes_share(Masses(no, yes)), neither)
            found.append(self._unscored(f"the judge wrote {wrote[:80]!r}") if wrote else judgment)
        return found

    def card(self) -> dict[str, Any]:
        """As `LocalChatJudge.card`, with the least mass."""
        return {**super().card(), "min_mass": LEAST_MASS}


def _load(kind: str, model: str) -> LoadedModel:
    from safepref.models import load_model

    try:
        return load_model(model)
    except InputError as error:
        raise InputError(f"judge {kind}: {error}; for a server write {kind}:MODEL@http://HOST/v1") from error
