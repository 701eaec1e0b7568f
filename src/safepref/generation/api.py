"""Generation by any OpenAI-compatible server (vLLM, SGLang, transformers serve, llama.cpp and others)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from safepref.data.records import Message
from safepref.errors import SafeprefError
from safepref.generation.base import Completion, Progress, Sampling

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class ServerError(SafeprefError):
    """The server could not be reached or gave no usable answer after the bounded retries."""


class ServerEngine:
    """Answers conversations through `POST {base_url}/chat/completions`.

    Args:
        base_url: up to and with `/v1`.
        model: the name the server knows the model by.
        api_key: null reads OPENAI_API_KEY; never logged.
        concurrency: requests under way at once.
        tries: attempts for each request, with exponential waits that honour Retry-After.
        timeout: seconds for one attempt.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        system: str | None = None,
        concurrency: int = 8,
        tries: int = 5,
        timeout: float = 120.0,
    ) -> None:
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
        self.model = model
        self.system = system
        self.concurrency = concurrency
        self.tries = tries
        self.name = f"server:{model}"
        self.block = 8 * concurrency
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One completion for each conversation, in the order given.

        Raises:
            ServerError: a request failed after all tries; names the address and the reason.
        """

        def one(messages: Sequence[Message]) -> Completion:
            answer = self._ask(messages, sampling)
            if progress is not None:
                progress(1)
            return answer

        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(one, conversations))

    def _ask(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        turns = list(messages)
        if self.system is not None and (not turns or turns[0]["role"] != "system"):
            turns.insert(0, {"role": "system", "content": self.system})
        body = {
            "model": self.model,
            "messages": turns,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        reason = ""
        for attempt in range(self.tries):
            try:
                reply = self._client.post("chat/completions", json=body)
                if reply.status_code == 200:
                    return _completion(reply.json())
                reason = f"HTTP {reply.status_code}: {reply.text[:200]}"
                if reply.status_code not in RETRIED:
                    break
                wait = _retry_after(reply)
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                reason, wait = f"{type(error).__name__}: {error}", None
            if attempt + 1 < self.tries:
                time.sleep(
                    wait if wait is not None else min(30.0, 0.5 * 2**attempt) * random.uniform(0.8, 1.2)
                )
        raise ServerError(
            f"server {self._client.base_url} gave no answer after {attempt + 1} tries "
            f"({' '.join(reason.split())}); "
            "check that it runs and serves this model; finished answers are kept"
        )


def _completion(reply: dict[str, Any]) -> Completion:
    choice = reply["choices"][0]
    text = choice["message"]["content"] or ""
    tokens = (reply.get("usage") or {}).get("completion_tokens") or len(text.split())
    return Completion(text.strip(), int(tokens), choice.get("finish_reason") == "length")


def _retry_after(reply: httpx.Response) -> float | None:
    try:
        return min(60.0, float(reply.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
