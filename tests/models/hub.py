"""A stand-in for the Hugging Face hub on this machine: the two addresses that a download asks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """repositories: "owner/name" -> path -> bytes.

    breaks: path -> after how many bytes of an answer the connection breaks, once each.
    ranges: (path, first byte) of each answered request for a file.
    corrupt: paths of which a byte is changed on the way.
    pauses: path -> what to wait for after the first half of a file.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    pauses: dict[str, threading.Event] = field(default_factory=dict)


def describe(repository: str, files: dict[str, bytes]) -> dict:
    siblings = []
    for path, data in files.items():
        sibling = {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
        if path.endswith((".safetensors", ".bin")):
            sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        siblings.append(sibling)
    return {"id": repository, "sha": REVISION, "siblings": siblings}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve a hub on a free port of the loopback address."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
                if self.is_allowed(found[1]):
                    self.send_bytes(json.dumps(describe(found[1], hub.repositories[found[1]])).encode())
            elif (found := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{REVISION}/(.+)", path)) and self.is_allowed(
                found[1]
            ):
                self.send_file(found[2], hub.repositories[found[1]][found[2]])

        def is_allowed(self, repository: str) -> bool:
            if repository in hub.gated:
                self.send_bytes(b"{}", 403, {"X-Error-Code": "GatedRepo"})
            elif repository not in hub.repositories:
                self.send_bytes(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
            else:
                return True
            return False

        def send_file(self, path: str, data: bytes) -> None:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            hub.ranges.append((path, start))
            if path in hub.corrupt:
                data = data[:-1] + bytes([data[-1] ^ 1])
            rest = data[start:]
            self.send_bytes(b"", 206 if start else 200, length=len(rest))
            end = hub.breaks[path].pop(0) if hub.breaks.get(path) else len(rest)
            half = end // 2
            self.wfile.write(rest[:half])
            if path in hub.pauses:
                hub.pauses[path].wait(10)
            self.wfile.write(rest[half:end])
            self.close_connection = True

        def send_bytes(
            self, data: bytes, status: int = 200, headers: dict[str, str] | None = None, length: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
