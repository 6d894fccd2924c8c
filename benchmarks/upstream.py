"""An OpenAI-compatible chat server on loopback that counts its requests and answers after a delay."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Upstream(ThreadingHTTPServer):
    """A server that answers every request with `tokens` output tokens after `delay` seconds, so that calls overlap."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, tokens: int, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.tokens, self.delay = tokens, delay
        self.requests = 0
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        """The value for LiteLLM's `api_base`."""
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def serving(tokens: int, delay: float) -> Iterator[Upstream]:
    """Run an upstream within this context."""
    upstream = Upstream(tokens, delay)
    threading.Thread(target=upstream.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.shutdown()
        upstream.server_close()


class _Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def log_message(self, *args: object) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        upstream = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with upstream.counting:
            upstream.requests += 1
            number = upstream.requests
        time.sleep(upstream.delay)
        message = {"role": "assistant", "content": "hello"}
        answer = json.dumps({
            "id": f"chatcmpl-{upstream.server_port}-{number}",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": upstream.tokens, "total_tokens": 1 + upstream.tokens},
        }).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
