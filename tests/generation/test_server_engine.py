"""The server engine against a real server on loopback: what is asked, order, retries, failures, secrets."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest

from chat_server import Reply, Request, closed_address, fails, one_after_another, says, serving
from safepref.errors import InputError
from safepref.generation.api import LONGEST_WAIT, ServerEngine, ServerError
from safepref.generation.base import Completion, Sampling

KEY = "sk-verysecret-0123456789"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no proxy from the machine that runs the tests."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def engine(url: str, waits: list[float] | None = None, **options: Any) -> ServerEngine:
    """An engine whose waits are noted and not waited."""
    return ServerEngine(url, "m", pause=(waits if waits is not None else []).append, **options)


def failure(asked: ServerEngine) -> str:
    with pytest.raises(ServerError) as caught:
        asked.generate(ask("hello"), Sampling())
    return str(caught.value)


def test_the_request_is_the_protocols() -> None:
    with serving(lambda _: says("yes")) as server:
        asked = ServerEngine(f"{server.url}/", "org/model", api_key=KEY)
        asked.generate(ask("hello"), Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3))
        (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "model": "org/model",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
    }


def test_the_key_comes_from_the_environment_and_without_one_none_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(lambda _: says("yes")) as server:
        engine(server.url).generate(ask("a"), Sampling())
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as a key file leaves it
        engine(server.url).generate(ask("a"), Sampling())
        engine(server.url, api_key="").generate(ask("a"), Sampling())
        sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == [None, f"Bearer {KEY}", None]


def test_a_system_prompt_opens_conversations_that_have_none() -> None:
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    with serving(lambda _: says("yes")) as server:
        engine(server.url, system="given", concurrency=1).generate([*ask("a"), own], Sampling())
        first, second = (request.body["messages"] for request in server.requests)
    assert first == [{"role": "system", "content": "given"}, {"role": "user", "content": "a"}]
    assert second == own


def test_answers_are_in_the_order_asked_though_the_first_comes_last() -> None:
    together = threading.Barrier(4)
    others = threading.Semaphore(0)

    def respond(request: Request) -> Reply:
        together.wait(20)  # breaks unless all four are under way at once
        if request.said == "0":
            for _ in range(3):
                assert others.acquire(timeout=20)
        else:
            others.release()
        return says(f"answer {request.said}")

    done: list[int] = []
    with serving(respond) as server:
        found = engine(server.url, concurrency=4).generate(ask("0", "1", "2", "3"), Sampling(), done.append)
    assert [completion.text for completion in found] == [f"answer {n}" for n in range(4)]
    assert done == [1, 1, 1, 1]


def test_no_more_requests_are_under_way_than_allowed() -> None:
    lock, under_way, most = threading.Lock(), 0, 0
    pairs = threading.Barrier(2)

    def respond(request: Request) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        pairs.wait(20)  # holds each until a second is there
        with lock:
            under_way -= 1
        return says(request.said)

    with serving(respond) as server:
        found = engine(server.url, concurrency=2).generate(ask(*"abcdef"), Sampling())
    assert [completion.text for completion in found] == list("abcdef")
    assert most == 2


def test_what_the_server_says_of_an_answer_is_kept() -> None:
    replies = (
        says(" cut ", "length", usage={"completion_tokens": 9}),
        says("two words"),
        says(None, usage=None),
        says("x", usage={"completion_tokens": "many"}),
        says("a \ud83d\ude00 \ud800"),
    )
    with serving(one_after_another(*replies)) as server:
        asked = engine(server.url, concurrency=1)
        found = asked.generate(ask(*"abcde"), Sampling())
    assert found == [
        Completion("cut", 9, True),
        Completion("two words", 2, False),
        Completion("", 0, False),
        Completion("x", 1, False),
        # A lone surrogate could not be written to the file of answers.
        Completion("a 😀 \ufffd", 3, False),
    ]


def test_a_prompt_with_a_lone_surrogate_is_asked_without_it() -> None:
    with serving(lambda _: says("yes")) as server:
        engine(server.url).generate(ask("a \ud800 😀"), Sampling())
        assert server.requests[0].said == "a \ufffd 😀"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    waits: list[float] = []
    with serving(one_after_another(fails(status), fails(status), says("at last"))) as server:
        found = engine(server.url, waits).generate(ask("hello"), Sampling())
        assert len(server.requests) == 3
    assert found[0].text == "at last"
    assert len(waits) == 2 and 0.4 <= waits[0] <= 0.6 and 0.8 <= waits[1] <= 1.2


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("2.5", 2.5, 2.5),
        ("86400", LONGEST_WAIT, LONGEST_WAIT),
        ("-1", 0.4, 0.6),
        ("nan", 0.4, 0.6),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.4, 0.6),
    ],
)
def test_the_servers_wait_is_honoured_within_bounds(asked: str, least: float, most: float) -> None:
    waits: list[float] = []
    with serving(one_after_another(fails(429, Retry_After=asked), says("yes"))) as server:
        engine(server.url, waits).generate(ask("hello"), Sampling())
    assert len(waits) == 1 and least <= waits[0] <= most


def test_tries_and_waits_are_bounded() -> None:
    waits: list[float] = []
    with serving(lambda _: fails(500, "line one\nline two")) as server:
        message = failure(engine(server.url, waits, tries=9))
        assert len(server.requests) == 9
        assert server.url in message
    assert len(waits) == 8 and max(waits) <= 36 and waits[0] < waits[3]
    assert "9 tries (HTTP 500: line one line two)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("status", "mend"),
    [(400, "serves this model"), (401, "OPENAI_API_KEY"), (404, "the model's name"), (307, "serves")],
)
def test_a_lasting_failure_is_not_tried_again_and_says_what_to_check(status: int, mend: str) -> None:
    waits: list[float] = []
    with serving(lambda _: fails(status)) as server:
        message = failure(engine(server.url, waits))
        assert len(server.requests) == 1
    assert not waits
    assert f"1 try (HTTP {status}: no)" in message and mend in message


RUBBISH = {
    "empty": b"",
    "not JSON": b"<html>gateway</html>",
    "cut": says("a long answer").body[:-20],
    "not UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "no choices": b"{}",
    "no choice": b'{"choices": []}',
    "choices by name": b'{"choices": {"a": 1}}',
    "choice is text": b'{"choices": ["yes"]}',
    "no content": b'{"choices": [{"message": {}}]}',
    "content in parts": says([{"type": "text", "text": "safe"}]).body,
    "content is a number": says(1).body,
    "too deep": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("body", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_is_tried_again_and_then_an_error_of_one_line(body: bytes) -> None:
    waits: list[float] = []
    with serving(lambda _: Reply(body)) as server:
        message = failure(engine(server.url, waits, tries=2))
        assert len(server.requests) == 2
    assert len(waits) == 1
    assert "no chat completion" in message and "\n" not in message and len(message) < 500


def test_one_rubbish_reply_costs_one_try() -> None:
    with serving(one_after_another(Reply(b"{"), says("fine"))) as server:
        assert engine(server.url).generate(ask("hello"), Sampling())[0].text == "fine"


def test_a_silent_server_times_out() -> None:
    release = threading.Event()

    def respond(_: Request) -> Reply:
        release.wait(30)
        return says("too late")

    waits: list[float] = []
    with serving(respond) as server:
        message = failure(engine(server.url, waits, tries=2, timeout=0.1))
        release.set()
    assert "2 tries (ReadTimeout" in message and len(waits) == 1


def test_a_refused_connection_is_one_clear_line() -> None:
    url, waits = closed_address(), list[float]()
    message = failure(engine(url, waits, tries=3))
    assert f"server {url} gave no answer in 3 tries (ConnectError" in message
    assert "check that it runs" in message and "\n" not in message and len(waits) == 2


def test_one_unanswered_conversation_fails_the_call() -> None:
    with (
        serving(lambda request: fails(400) if request.said == "b" else says("yes")) as server,
        pytest.raises(ServerError) as caught,
    ):
        engine(server.url).generate(ask("a", "b", "c"), Sampling())
    assert caught.value.status == 400 and caught.value.is_of_the_request


@pytest.mark.parametrize("cut", ["", "x" * 190])
def test_secrets_stay_out_of_errors_and_logs(cut: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def repeat(request: Request) -> Reply:
        return fails(401, cut + json.dumps(request.headers) + KEY + " hunter2")

    with serving(repeat) as server:
        with_key = engine(server.url, api_key=KEY)
        with_password = engine(server.url.replace("//", "//user:hunter2@"))
        shown = failure(with_key) + failure(with_password) + repr(with_key) + with_password.url
        sent = [request.headers["authorization"] for request in server.requests]
    assert sent[0] == f"Bearer {KEY}" and sent[1].startswith("Basic ")
    assert "401" in shown
    for text in (shown, caplog.text):
        assert KEY[:12] not in text and "hunter2" not in text
        assert sent[1].removeprefix("Basic ") not in text


@pytest.mark.parametrize("key", ["sk-péché-secret", "sk-secret\nX-Header: 1", "sk-\x07secret"])
def test_a_key_that_is_no_header_is_refused_unshown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        ServerEngine("http://127.0.0.1:1/v1", "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:99999/v1",
        "http://user:hunter2@host:99999/v1",
        "http://a\nb/v1",
        "http://host/v1?key=hunter2",
        "https://host/v1#hunter2",
    ],
)
def test_what_is_no_address_is_one_clear_line(url: str) -> None:
    with pytest.raises(InputError, match=r"give http\(s\)://HOST/v1") as caught:
        ServerEngine(url, "m")
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("option", [{"tries": 0}, {"concurrency": 0}, {"timeout": -1.0}])
def test_numbers_out_of_range_are_refused(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(InputError, match=f"{name} is .*; give a number above 0"):
        ServerEngine("http://127.0.0.1:1/v1", "m", **option)
