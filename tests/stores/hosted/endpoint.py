"""An endpoint of LiteLLM's budget protocol on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.client import HttpClient

LITELLMS_KEYS = {"total_budget", "duration", "created_at", "last_updated_at", "current_cost", "model_cost"}


class Endpoint:
    """An endpoint that keeps each project's dictionary, like a service behind `api_base`.

    `asked` lists the paths in their order. `away`: every request is answered 503. `deaf`: writes are kept, but their answers
    are lost. `strict`: keys that LiteLLM does not know are dropped. `stalled`: no request is answered before the event is
    set. `before_set`, called once before the next write is kept, lets a test act between a read and a write. `trouble` lists
    the faults of the next requests: as above, or "late": the answer is lost, and a write is kept only after the next one.
    """

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.away = self.deaf = self.refuses_writes = self.strict = False
        self.stalled: threading.Event | None = None
        self.before_set: Any = None
        self.trouble: list[str] = []
        self._late: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def forget(self) -> None:
        """Forget everything."""
        self.data, self.asked, self.trouble, self._late = {}, [], [], []

    def exchange(self) -> HttpClient:
        """A client of it, as `open_store` makes it."""
        return HttpClient(parse_address("http", self.url.removeprefix("http://")))

    def close(self) -> None:
        if self.stalled is not None:
            self.stalled.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

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
        """The status and the body of an answer; None if it is lost."""
        self.asked.append(path)
        trouble = self.trouble.pop(0) if self.trouble else "none"
        if self.stalled is not None:
            self.stalled.wait()
        if self.away or trouble == "away":
            return 503, {"detail": "the test has sent it away"}
        if path == "/get_budget":
            return None if trouble in ("deaf", "late") else self._read(body["project_name"])
        return self._write(body, trouble)

    def _read(self, project: str) -> tuple[int, Any]:
        if project not in self.data:
            return 200, {"status": "error"}
        return 200, {"status": "success", "data": self.data[project]}

    def _write(self, body: dict[str, Any], trouble: str) -> tuple[int, Any] | None:
        if self.refuses_writes or trouble == "refused":
            return 200, {"status": "error", "message": "the disk is full"}
        if self.before_set is not None:
            between, self.before_set = self.before_set, None
            between()
        if trouble == "late":
            self._late.append(body)
            return None
        written, self._late = (body, *self._late), []
        for each in written:
            self.data[each["project_name"]] = each["user_dict"]
            for record in each["user_dict"].values() if self.strict else ():
                for key in record.keys() - LITELLMS_KEYS:
                    del record[key]
        return None if self.deaf or trouble == "deaf" else (200, {"status": "success"})
