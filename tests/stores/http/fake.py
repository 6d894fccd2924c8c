"""An HTTP server that returns the answers of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from litellm_budget_plugin.stores.http.store import PROTOCOL

OURS = {"LiteLLM-Budget-Protocol": str(PROTOCOL)}
HELLO = f'{{"service": "litellm-budget", "protocol": {PROTOCOL}, "project": "p", "access": "read-write"}}'.encode()


class Said(NamedTuple):
    """One answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = OURS


GOOD = Said(200, HELLO)


class Fake:
    """A server that answers GET /v1 with `hello` and everything else with the next of `answers`, repeating the last
    one. `asked` are the requests: method, path, headers in lower case, body.
    """

    def __init__(self, *answers: Said, hello: Said = GOOD) -> None:
        self.answers, self.hello = list(answers), hello
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.asked.append((self.command, self.path, headers, body))
                asks_hello = self.command == "GET" and self.path.endswith("/v1")
                said = fake.hello if asks_hello else fake.answers[0]
                if not asks_hello and len(fake.answers) > 1:
                    fake.answers.pop(0)
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

            do_GET = do_POST = _answer  # noqa: N815  # http.server's names

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def base(self) -> str:
        """Its address, without the scheme."""
        return f"127.0.0.1:{self.server.server_port}"


@contextmanager
def running(*answers: Said, hello: Said = GOOD) -> Iterator[Fake]:
    """Run a server for one test."""
    fake = Fake(*answers, hello=hello)
    threading.Thread(target=fake.server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
