"""A real chat-completions server on loopback, whose replies a test writes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What reached the server. `said` is the last turn's text."""

    path: str
    headers: dict[str, str]
    body: Any

    @property
    def said(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Reply:
    """What the server sends back."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def says(text: Any, finish: str = "stop", **more: Any) -> Reply:
    """A chat completion with that content."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return Reply(json.dumps({"object": "chat.completion", "choices": choices, **more}).encode())


def lists(*rows: dict[str, Any]) -> Reply:
    """A list of models."""
    return Reply(json.dumps({"object": "list", "data": rows}).encode())


def fails(status: int, text: str = "no", **headers: str) -> Reply:
    """An error reply."""
    return Reply(text.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class ChatServer:
    """A running server: its address up to /v1, and the requests so far."""

    url: str
    requests: list[Request]


@contextmanager
def serving(
    respond: Callable[[Request], Reply], models: Callable[[], Reply] | None = None
) -> Iterator[ChatServer]:
    """Serve until the block ends; `respond` is called in a thread for each connection.

    `models` gives the list of models at GET /v1/models; without it there is none.
    """
    lock = threading.Lock()
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, body)
            with lock:
                requests.append(request)
            self.send(respond(request))

        def do_GET(self) -> None:
            self.send(models() if models is not None and self.path == "/v1/models" else fails(404))

        def send(self, reply: Reply) -> None:
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except ConnectionError:
                self.close_connection = True  # the client did not wait

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def one_after_another(*replies: Reply) -> Callable[[Request], Reply]:
    """Gives the replies in turn, the last one for ever."""
    left = list(replies)
    lock = threading.Lock()

    def respond(_: Request) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return respond


def closed_address() -> str:
    """An address where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/v1"
