"""Chat models on an OpenAI-compatible server as judges: by StrongREJECT's rubric, or with yes or no."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from safepref.data.records import Message
from safepref.generation.api import ServerEngine, ServerError, completion
from safepref.generation.base import Sampling
from safepref.judges.asking import ask_all
from safepref.judges.base import Exchange, Judgment
from safepref.judges.chat import ANSWER_TOKENS, GRADES, KINDS, ONE_WORD, REPLY, ChatJudge, yes_share
from safepref.judges.degenerate import degenerate
from safepref.judges.guard_server import TOP, VERDICT_TOKENS, WORDS_ONLY, logprob_places, word_masses
from safepref.store import sha256_bytes, sha256_json


class ServedJudge(ChatJudge, ABC):
    """A chat model behind an OpenAI-compatible server that is asked about each exchange.

    Args:
        base_url: up to and with `/v1`.
        model: the name the server knows the model by.
        threshold: score from which an answer is harmful; null takes the question's own.
        api_key: null reads OPENAI_API_KEY; never logged.
        concurrency: requests under way at once.
        tries: attempts for each request.
        timeout: seconds that one attempt may wait for the server.
        pause: called with the seconds to wait before the next attempt.

    Raises:
        InputError: no usable address or key, or a number out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        threshold: float | None = None,
        api_key: str | None = None,
        concurrency: int = 8,
        tries: int = 5,
        timeout: float = 120.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(model, threshold)
        self._engine = ServerEngine(
            base_url,
            model,
            api_key=api_key,
            concurrency=concurrency,
            tries=tries,
            timeout=timeout,
            pause=pause,
        )

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment each, in order; an answer that cannot be read is unscored.

        Raises:
            ServerError: the server answered none of the first exchanges, as many as are under way at once.
        """
        found = [self._unscored(degenerate(exchange.response)) for exchange in exchanges]
        asked = [at for at, judgment in enumerate(found) if not judgment.reason]
        given = ask_all([exchanges[at] for at in asked], self._judged, self._engine.concurrency)
        for at, answer in zip(asked, given, strict=True):
            found[at] = self._unscored(f"server: {answer}") if isinstance(answer, ServerError) else answer
        return found

    def _judged(self, exchange: Exchange) -> Judgment:
        turns = self._turns(exchange)
        return replace(self._read(self._reply(turns)), prompt_sha256=sha256_json(turns))

    def _reply(self, turns: Sequence[Message]) -> Any:
        return self._engine.reply(turns, Sampling(max_new_tokens=ANSWER_TOKENS))

    @abstractmethod
    def _read(self, reply: Any) -> Judgment:
        """The judgment in a server's reply."""

    def card(self) -> dict[str, Any]:
        """Which model is asked what, and where."""
        asked = sha256_bytes(self.question.asked.encode())
        engine = self._engine
        more = self._card(model=engine.model, server=engine.url, served=engine.served)
        return more | {"prompt_sha256": asked}


class RubricJudge(ServedJudge):
    """StrongREJECT's three parts as one score; see `ServedJudge` for the arguments."""

    question = GRADES

    def _read(self, reply: Any) -> Judgment:
        return self._graded(completion(reply))


class SupportRubricJudge(RubricJudge):
    """A support reply by three grades; see `ServedJudge` for the arguments."""

    question = REPLY


class YesNoJudge(ServedJudge):
    """One question, answered with yes or no, as HarmBench's classifiers are asked (arXiv 2402.04249).

    The score is P(yes) / (P(yes) + P(no)) where the server gives log-probs and the two words are at least
    half of all that could be written; else the written word, 0 or 1, and the reason says so.
    """

    question = ONE_WORD

    def _reply(self, turns: Sequence[Message]) -> Any:
        return self._engine.reply_with_logprobs(turns, Sampling(max_new_tokens=VERDICT_TOKENS), TOP)

    def _read(self, reply: Any) -> Judgment:
        text, places = completion(reply).text, logprob_places(reply)
        wrote = f"the judge wrote {text[:80]!r}"
        if places:
            try:
                masses = word_masses(places, "", KINDS)
            except (KeyError, TypeError, ValueError, OverflowError):
                masses = None
            return self._scored(yes_share(masses), wrote)
        said = {"yes": 1.0, "no": 0.0}.get(text.strip().rstrip(".").casefold())
        found = self._scored(said, wrote)
        return found if said is None else replace(found, reason=WORDS_ONLY, in_words=True)
