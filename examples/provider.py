"""An OpenAI-compatible chat server on loopback, for examples that run without an API key."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Forty-two, as far as anybody knows."
USAGE = {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80}


class LocalProvider(ThreadingHTTPServer):
    """A server that answers every chat request with 60 tokens, in one piece or as a stream. `requests` counts the requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.requests = 0
        self.counting = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The value for LiteLLM's `api_base`."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalProvider

    def do_POST(self) -> None:
        with self.server.counting:
            self.server.requests += 1
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.1)  # as long as a model needs, so that the example's calls overlap
        head = {"id": f"chatcmpl-{self.server.requests}", "created": int(time.time()), "model": asked["model"]}
        if asked.get("stream"):
            self._send("text/event-stream", "".join(f"data: {event}\n\n" for event in [*_chunks(head), "[DONE]"]))
        else:
            message = {"role": "assistant", "content": ANSWER}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            self._send(
                "application/json",
                json.dumps({**head, "object": "chat.completion", "choices": choices, "usage": USAGE}),
            )

    def _send(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, because the example prints the results."""


def _chunks(head: dict[str, Any]) -> list[str]:
    """Return the chunks of a stream: the answer word by word, the finish reason, and the usage."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": f"{word} "}, None) for word in ANSWER.split()]
    choices = [[{"index": 0, "delta": delta, "finish_reason": end}] for delta, end in [*deltas, ({}, "stop")]]
    head = {**head, "object": "chat.completion.chunk"}
    told = [{**head, "choices": choice} for choice in choices]
    return [json.dumps(chunk) for chunk in [*told, {**head, "choices": [], "usage": USAGE}]]
