"""A small OpenAI-compatible server on loopback, which counts its requests and the answers that it would bill."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Usage(NamedTuple):
    prompt: int
    completion: int


class Upstream:
    """A server that answers chat, text completions and embeddings. `usage` is the number of tokens that each answer reports. With
    `writes_all` an answer has as many output tokens as its request allows, and `usage.completion` without a limit. `answers_as` is
    the model that every answer names, unless it is None. `watch` is called with each body before it is answered.

    `script[model]` is a queue of actions for the next requests for a model, instead of an answer: an HTTP status, "hang" (no
    answer until `release`), "cut" (the connection is cut before the answer), "cut-stream" (after two chunks),
    "hang-stream" (after two chunks), "context" (a context-window error). `served` lists the models of billable answers;
    a streamed answer counts when its last chunk was sent. `requests` counts all requests.
    """

    def __init__(self, handler: type[Handler] | None = None) -> None:
        self.usage = Usage(10, 5)
        self.writes_all = False
        self.answers_as: str | None = None
        self.watch: Callable[[dict[str, Any]], object] = len
        self.report_stream_usage = True
        self.script: dict[str, deque[Any]] = defaultdict(deque)
        self.served: list[str] = []
        self.usages: list[Usage] = []
        self.requests = 0
        self.bodies: list[dict[str, Any]] = []
        self.release = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), handler or Handler)
        self._server.upstream = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def billed(self, prices: dict[str, tuple[int, int]]) -> int:
        """Return the nano-dollars for all served answers, with prices by model: (per prompt token, per completion token)."""
        return sum(
            prices[model][0] * usage.prompt + prices[model][1] * usage.completion
            for model, usage in zip(self.served, self.usages)
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    upstream: Upstream

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing, because in many tests a client disconnects before the end."""


class Handler(BaseHTTPRequestHandler):
    """A handler of chat, text completions and embeddings in OpenAI's format."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        upstream = self.server.upstream
        body = self.read_body()
        model = body["model"]
        with upstream.lock:
            upstream.requests += 1
            upstream.bodies.append(body)
            act = self.act(model)
        upstream.watch(body)
        if isinstance(act, int):
            self._json(act, {"error": {"message": f"scripted {act}", "type": "scripted", "code": str(act)}})
        elif act == "context":
            message = "This model's maximum context length is 10 tokens."
            self._json(400, {"error": {"message": message, "type": "x", "code": "context_length_exceeded"}})
        elif act == "hang":
            upstream.release.wait()
            self.close_connection = True
        elif act == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif body.get("stream"):
            self._stream(body, act)
        else:
            self._count(body)
            self.answer(body)

    def act(self, model: str) -> Any:
        """Return the action instead of an answer; None to answer."""
        waiting = self.server.upstream.script[model]
        return waiting.popleft() if waiting else None

    def read_body(self) -> dict[str, Any]:
        """Return the request's body, which must contain `model`."""
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def answer(self, body: dict[str, Any]) -> None:
        """Send the whole answer."""
        self._json(200, self._answer(body))

    def _count(self, body: dict[str, Any]) -> None:
        with self.server.upstream.lock:
            self.server.upstream.served.append(body["model"])
            self.server.upstream.usages.append(self._used(body))

    def _used(self, body: dict[str, Any]) -> Usage:
        usage = self.server.upstream.usage
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if not self.server.upstream.writes_all or limit is None:
            return usage
        return Usage(usage.prompt, limit * max(body.get("n") or 1, body.get("best_of") or 1))

    def _usage(self, body: dict[str, Any]) -> dict[str, int]:
        prompt, completion = self._used(body)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        model, usage = self.server.upstream.answers_as or body["model"], self._usage(body)
        if self.path.endswith("/embeddings"):
            content = body["input"]
            count = len(content) if isinstance(content, list) and not isinstance(content[0], int) else 1
            rows = [{"object": "embedding", "index": n, "embedding": [0.0, 1.0]} for n in range(count)]
            usage = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]}
            return {"object": "list", "data": rows, "model": model, "usage": usage}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if self.path.endswith("/chat/completions"):
            choice["message"] = {"role": "assistant", "content": "hello"}
            kind = "chat.completion"
        else:
            choice["text"], choice["logprobs"] = "hello", None
            kind = "text_completion"
        return {
            "id": f"id-{id(body)}",
            "object": kind,
            "created": 1,
            "model": model,
            "choices": [choice],
            "usage": usage,
        }

    def _stream(self, body: dict[str, Any], act: Any) -> None:
        upstream = self.server.upstream
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            events = list(self.events(body))
            for number, event in enumerate(events):
                if number == 2 and act == "cut-stream":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if number == 2 and act == "hang-stream":
                    upstream.release.wait()
                    self.close_connection = True
                    return
                if number == len(events) - 1:
                    self._count(body)
                self._chunk(event.encode())
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def events(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the server-sent events of a streamed answer."""
        for chunk in self._chat_chunks(body):
            yield f"data: {chunk}\n\n"
        yield "data: [DONE]\n\n"

    def _chat_chunks(self, body: dict[str, Any]) -> Iterator[str]:
        chat = self.path.endswith("/chat/completions")
        model = self.server.upstream.answers_as or body["model"]
        head = {"id": f"id-{id(body)}", "created": 1, "model": model}
        head["object"] = "chat.completion.chunk" if chat else "text_completion"
        for number in range(5):
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            if chat:
                choice["delta"] = {"role": "assistant", "content": f"word{number} "}
            else:
                choice["text"] = f"word{number} "
            yield json.dumps({**head, "choices": [choice]})
        last: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        last.update({"delta": {}} if chat else {"text": ""})
        yield json.dumps({**head, "choices": [last]})
        if self.server.upstream.report_stream_usage:
            yield json.dumps({**head, "choices": [], "usage": self._usage(body)})

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(answer).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
