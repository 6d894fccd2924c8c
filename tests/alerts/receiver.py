"""A receiver of webhooks on loopback, which keeps its requests and answers as its script says."""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request. The names of `headers` are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """A receiver that answers 200, or as the next entry of `script` says: a status, a status with headers, "hang" (no answer until
    `close`), "drip" (headers without an end) or "flood" (a body without an end).
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: deque[Any] = deque()
        self.arrived = threading.Condition()
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        step = self.script.popleft() if self.script else 200
        with self.arrived:
            self.requests.append(Request(handler.path, headers, body))
            self.arrived.notify_all()
        if step == "hang":
            self._over.wait()
            return
        if step in ("drip", "flood"):
            self._trickle(handler, step)
            return
        status, extra = step if isinstance(step, tuple) else (step, {})
        handler.send_response(status)
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _trickle(self, handler: BaseHTTPRequestHandler, step: str) -> None:
        """Send headers or a body without an end."""
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n" if step == "drip" else b"HTTP/1.1 200 OK\r\n\r\n")
            while not self._over.wait(0.05 if step == "drip" else 0):
                handler.wfile.write(b"X: x\r\n" if step == "drip" else b"x" * 65536)
        except OSError:
            return

    def wait_for(self, count: int, seconds: float = 20.0) -> list[Request]:
        """Wait until there are `count` requests, and return them."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, seconds), self.requests
            return list(self.requests)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
