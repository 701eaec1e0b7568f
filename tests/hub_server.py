"""A real model hub on loopback, as small as an upload allows: repositories, large files, commits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What was uploaded to a running server, by repository and file."""

    url: str = ""
    token: str = ""
    made: list[tuple[str, bool]] = field(default_factory=list)
    """Repositories in the order in which they were made, and whether they are private."""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and reply to a POST."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "it is there", "url": f"{self.url}/{name}"}
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.made.append((name, private))
            self.repositories[name] = {}
            return 200, {"url": f"{self.url}/{name}", "name": name}
        for name, files in self.repositories.items():
            if path == f"/api/models/{name}/preupload/main":
                return 200, {"files": [self._mode(file) for file in json.loads(body)["files"]]}
            if path == f"/{name}.git/info/lfs/objects/batch":
                objects = json.loads(body)["objects"]
                return 200, {"transfer": "basic", "objects": [self._action(asked) for asked in objects]}
            if path == f"/api/models/{name}/commit/main":
                for line in map(json.loads, body.splitlines()):
                    self._commit(files, line["key"], line["value"])
                return 200, {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"{self.url}/{name}/commit/0",
                }
        return 404, {"error": "no such address"}

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = str(file["path"]).endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _action(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/large/{asked['oid']}", "header": {}}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}

    def _commit(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = self.large[value["oid"]]


@contextmanager
def hub(token: str) -> Iterator[Hub]:
    """Serve until the block ends; who brings another token is refused."""
    found = Hub(token=token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("authorization") != f"Bearer {found.token}":
                self.send(401, {"error": f"Invalid credentials: {self.headers.get('authorization')}"})
                return
            self.send(*found.answer(self.path, body))

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            found.large[self.path.rpartition("/")[2]] = content
            self.send(200, {})

        def do_GET(self) -> None:
            self.send(404, {"error": "no such address"})

        def send(self, status: int, reply: dict[str, Any]) -> None:
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
