"""An endpoint of LiteLLM's budget protocol on loopback, and a line to it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable

LITELLMS_KEYS = {"total_budget", "duration", "created_at", "last_updated_at", "current_cost", "model_cost"}


class Endpoint:
    """Keeps each project's dictionary, as a service behind `api_base` would.

    `asked` lists the paths in their order. `away`: every request is answered 503. `deaf`: what is written is kept, and the
    answer lost. `strict`: keys that LiteLLM does not know are dropped. `stalled`: no request is answered before the event is set. `before_set`, called once before the next write
    is kept, lets a test come between a read and a write.
    """

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.away = self.deaf = self.refuses_writes = self.strict = False
        self.stalled: threading.Event | None = None
        self.before_set: Any = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        if self.stalled is not None:
            self.stalled.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = endpoint.answer(self.path, body)
                if answer is None:
                    self.close_connection = True
                    return
                sent = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        self.asked.append(path)
        self.bodies.append(body)
        if self.stalled is not None:
            self.stalled.wait()
        if self.away:
            return 503, {"detail": "the test has sent it away"}
        project = body["project_name"]
        if path == "/get_budget":
            if project not in self.data:
                return 200, {"status": "error"}
            return 200, {"status": "success", "data": self.data[project]}
        if self.refuses_writes:
            return 200, {"status": "error", "message": "the disk is full"}
        if self.before_set is not None:
            between, self.before_set = self.before_set, None
            between()
        self.data[project] = body["user_dict"]
        for record in self.data[project].values() if self.strict else ():
            for key in record.keys() - LITELLMS_KEYS:
                del record[key]
        return None if self.deaf else (200, {"status": "success"})


class Line:
    """The exchange of the tests: what the project's own connection layer promises, over httpx."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False)

    def post(self, path: str, body: object, deadline: float) -> object:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise BudgetStoreUnavailable("no time left to ask")
        try:
            answer = self._client.post(path, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            raise BudgetStoreUnavailable(f"nobody answered: {error!r}") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise BudgetStoreUnavailable(f"HTTP {answer.status_code}")
        if not answer.is_success:
            raise BudgetStoreError(f"HTTP {answer.status_code}")
        return answer.json()

    def close(self) -> None:
        self._client.close()
