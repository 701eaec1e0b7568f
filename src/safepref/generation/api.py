"""Generation by any OpenAI-compatible server (vLLM, SGLang, transformers serve, llama.cpp and others)."""

from __future__ import annotations

import base64
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import httpx

from safepref.data.records import Message, without_surrogates
from safepref.errors import InputError, SafeprefError
from safepref.generation.base import Completion, Progress, Sampling

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 60.0
"""Seconds between two attempts, whatever the server asks for."""

LIST_TIMEOUT = 10.0
"""Seconds that the list of models may take: it is asked for beside the work."""
SAME_TIME = 5.0
"""Seconds within which two times are one."""

_HINTS: dict[int | None, str] = {
    401: "check OPENAI_API_KEY",
    403: "check OPENAI_API_KEY",
    404: "check the address and the model's name",
}
_HINT = "check that it runs and serves this model"


class ServerError(SafeprefError):
    """The server could not be reached or gave no usable answer after the bounded retries.

    `status`: the last reply's HTTP status, null where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_of_the_request(self) -> bool:
        """Whether the server refused this one request (too long, say), and may well answer another."""
        return self.status in (400, 413, 422)


class ServerEngine:
    """Answers conversations through `POST {base_url}/chat/completions`.

    Args:
        base_url: up to and with `/v1`; a user and password in it are sent as such and never shown.
        model: the name the server knows the model by.
        api_key: null reads OPENAI_API_KEY; never logged, and blotted out where a server repeats it.
        concurrency: requests under way at once.
        tries: attempts for each request, with exponential waits that honour Retry-After.
        timeout: seconds that one attempt may wait for the server to connect or to say something.
        pause: called with the seconds to wait before the next attempt.

    Raises:
        InputError: no usable address or key, or a number out of range.
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
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        for name, value in {"concurrency": concurrency, "tries": tries, "timeout": timeout}.items():
            if not value > 0:
                raise InputError(f"server {model!r}: {name} is {value!r}; give a number above 0")
        url = _address(base_url)
        key = _key(api_key)
        self.model = model
        self.system = system
        self.concurrency = concurrency
        self.tries = tries
        self.name = f"server:{model}"
        self.block = 8 * concurrency
        self.url = str(url.copy_with(userinfo=b"")).rstrip("/")
        """The address without what is secret in it."""
        self._pause = pause
        self._gives_logprobs = True
        packed = base64.b64encode(f"{url.username}:{url.password}".encode()).decode() if url.password else ""
        self._secrets = [secret for secret in (key, packed, url.password) if secret]
        self._client = httpx.Client(
            base_url=f"{self.url}/",
            timeout=timeout,
            # The client logs addresses, so a password must not stay in one.
            auth=(url.username, url.password) if url.userinfo else None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
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
            answer = self.answer(messages, sampling)
            if progress is not None:
                progress(1)
            return answer

        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(one, conversations))

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """The completion of one conversation; raises as `generate` does. Threads may call it together."""
        return completion(self.reply(messages, sampling))

    def reply(self, messages: Sequence[Message], sampling: Sampling, **more: Any) -> Any:
        """As `answer`, but the server's whole reply, which is a chat completion; `more` goes into the
        request.
        """
        turns = [{"role": m["role"], "content": without_surrogates(m["content"])} for m in messages]
        if self.system is not None and (not turns or turns[0]["role"] != "system"):
            turns.insert(0, {"role": "system", "content": without_surrogates(self.system)})
        body = {
            "model": self.model,
            "messages": turns,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            **more,
        }
        reason, attempt, status = "", 0, None
        for attempt in range(1, self.tries + 1):
            wait = min(30.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.8, 1.2)
            try:
                reply = self._client.post("chat/completions", json=body)
            except httpx.HTTPError as error:
                reason, status = f"{type(error).__name__}: {error}", None
            else:
                status = reply.status_code
                if status == 200:
                    try:
                        found = reply.json()
                        completion(found)
                        return found
                    # Servers can nest JSON deeper than the reader goes.
                    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
                        reason = f"its reply is no chat completion, {type(error).__name__}: {error}"
                else:
                    reason = f"HTTP {status}: {reply.text}"
                    if status not in RETRIED:
                        break
                    wait = _retry_after(reply, wait)
            if attempt < self.tries:
                self._pause(wait)
        raise ServerError(
            f"server {self.url} gave no answer in {attempt} {'try' if attempt == 1 else 'tries'} "
            f"({self._presentable(reason)}); {_HINTS.get(status, _HINT)}; finished answers are kept",
            status,
        )

    def reply_with_logprobs(
        self, messages: Sequence[Message], sampling: Sampling, top: int, **more: Any
    ) -> Any:
        """As `reply`, with the `top` likeliest tokens at each place where the server gives them."""
        if self._gives_logprobs:
            try:
                return self.reply(messages, sampling, **more, logprobs=True, top_logprobs=top)
            except ServerError as error:
                if not error.is_of_the_request:
                    raise
        # It may be the log-probs that this server does not take, or the conversation.
        found = self.reply(messages, sampling, **more)
        self._gives_logprobs = False
        return found

    @cached_property
    def served(self) -> dict[str, Any]:
        """What the server's list of models says of this one: its `root`, `created` and `owned_by`.

        Asked once, in one attempt; empty where the server has no such list. A `created` that is the time of
        asking, which vLLM and others give each time anew, says nothing and is left out.
        """
        try:
            reply = self._client.get("models", timeout=LIST_TIMEOUT)
            rows = reply.json()["data"] if reply.status_code == 200 else []
            row = {row["id"]: row for row in rows}[self.model]
            said = {name: row.get(name) for name in ("root", "created", "owned_by")}
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}
        found: dict[str, Any] = {name: value for name, value in said.items() if isinstance(value, int)}
        found |= {
            name: without_surrogates(value)[:200] for name, value in said.items() if isinstance(value, str)
        }
        if "created" in found and _is_now(found["created"], reply):
            del found["created"]
        return found

    def _presentable(self, reason: str) -> str:
        """One short line in which no secret is repeated; cut last, lest half a secret stay."""
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        return " ".join(reason.split())[:200]


def _address(base_url: str) -> httpx.URL:
    """The server's address, if it is one."""
    shown = re.sub(r"//[^/]*@|[?#].*", lambda m: "//***@" if m[0].startswith("//") else "", base_url)
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise InputError(f"server {shown!r} is no URL ({error}); give http(s)://HOST/v1") from None
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 2**16:
        raise InputError(f"server {shown!r} is no URL; give http(s)://HOST/v1")
    if url.query or url.fragment:
        raise InputError(f"server {shown!r}: something stands behind its path; give http(s)://HOST/v1")
    return url


def _key(given: str | None) -> str:
    """The API key; a key file's line end is cut off, for a header that holds one is quoted in errors."""
    key = (given if given is not None else os.environ.get("OPENAI_API_KEY", "")).strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            "the server's API key (OPENAI_API_KEY) holds characters that no key has; copy it again"
        )
    return key


def completion(reply: Any) -> Completion:
    """The answer in a server's reply; anything but a chat completion raises one of Python's own errors."""
    choice = reply["choices"][0]
    content = choice["message"]["content"]
    if not isinstance(content, str | None):
        raise TypeError(f"content is of type {type(content).__name__}")
    text = without_surrogates(content or "")
    usage = reply.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    tokens = counted if isinstance(counted, int) else len(text.split())
    return Completion(text.strip(), tokens, choice.get("finish_reason") == "length")


def _is_now(created: Any, reply: httpx.Response) -> bool:
    """Whether a time in seconds is that of a reply, by the server's own clock where it tells."""
    try:
        now = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        now = time.time()
    return isinstance(created, int) and abs(created - now) <= SAME_TIME


def _retry_after(reply: httpx.Response, otherwise: float) -> float:
    """The seconds that the server asks for, within bounds; dates and nonsense are passed over."""
    asked = reply.headers.get("retry-after", "")
    return min(LONGEST_WAIT, float(asked)) if re.fullmatch(r"\d+(\.\d+)?", asked) else otherwise
