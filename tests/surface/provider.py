"""The upstream of the other tests, extended by every other family of calls, in the format of the provider that serves it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.upstream import Handler, Upstream

WORDS = [f"word{number} " for number in range(5)]
PAGES = 4
SECONDS = 10.0


class Provider(Upstream):
    """OpenAI, Anthropic, Google, Cohere, Mistral and Serper on one port.

    An address that begins with `/do-ACT` is not answered but treated like ACT in `Upstream.script`.
    """

    def __init__(self) -> None:
        super().__init__(_Provider)


@contextmanager
def apart() -> Iterator[str]:
    """Yield the address of a provider in its own process, whose every answer reports a thousand tokens each way."""
    program = (
        "import sys; from tests.surface.provider import Provider; from tests.upstream import Usage; server = Provider(); "
        "server.usage = Usage(1000, 1000); server.bodies = __import__('collections').deque(maxlen=0); "
        "print(server.url, flush=True); sys.stdin.read()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        yield running.stdout.readline().strip()
    finally:
        running.communicate()


class _Provider(Handler):
    def act(self, model: str) -> Any:
        found = re.match(r"/do-([a-z0-9-]+)/", self.path)
        if found is None:
            return super().act(model)
        return int(found[1]) if found[1].isdigit() else found[1]

    def read_body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0) or 0) or self._read_chunked()
        if "multipart" in (self.headers.get("Content-Type") or ""):
            fields = re.findall(rb'name="([a-z_]+)"\r\n\r\n([^\r]*)\r\n', raw)
            body: dict[str, Any] = {name.decode(): value.decode() for name, value in fields}
        else:
            body = json.loads(raw)
        if "enerateContent" in self.path:
            body = {**body, "model": self.path.split("models/")[1].split(":")[0], "stream": "stream" in self.path}
        body.setdefault("model", "search" if self._kind == "search" else "unknown")
        return body

    def _read_chunked(self) -> bytes:
        raw = b""
        while "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            size = int(self.rfile.readline(), 16)
            raw += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        return raw

    @property
    def _kind(self) -> str:
        return self.path.partition("?")[0].rpartition("/")[2]

    def answer(self, body: dict[str, Any]) -> None:
        if self._kind == "speech":
            self._send(200, "audio/mpeg", b"ID3 sound")
        else:
            super().answer(body)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        make = {
            "responses": self._response,
            "messages": self._message,
            "generations": self._picture,
            "edits": self._picture,
            "variations": self._picture,
            "transcriptions": lambda _: {"text": "hello", "duration": SECONDS},
            "rerank": lambda _: {
                "id": "r",
                "results": [{"index": 0, "relevance_score": 0.9}],
                "meta": {"billed_units": {"search_units": 1}},
            },
            "moderations": lambda body: {
                "id": "m",
                "model": body["model"],
                "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
            },
            "ocr": self._pages,
            "search": lambda _: {"organic": [{"title": "t", "link": "http://x", "snippet": "c"}]},
            "videos": lambda body: {
                "id": "video_1",
                "object": "video",
                "created_at": 1,
                "status": "queued",
                "model": body["model"],
                "seconds": body.get("seconds"),
                "size": "720x1280",
            },
        }.get(self._kind)
        if make is not None:
            return make(body)
        if "enerateContent" in self.path:
            return self._content("hello", last=True)
        answer = super()._answer(body)
        # LiteLLM's bridge from `responses` to chat reads it.
        return {**answer, "service_tier": "default"} if "choices" in answer else answer

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = self.server.upstream.usage
        content = [{"type": "output_text", "text": "hello", "annotations": []}]
        if body.get("background"):
            return {**self._response({**body, "background": False}), "status": "queued", "output": [], "usage": None}
        return {
            "id": f"resp_{id(body)}",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": "completed",
            "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}],
            "usage": {
                "input_tokens": prompt,
                "output_tokens": completion,
                "total_tokens": prompt + completion,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "temperature": 1,
            "top_p": 1,
        }

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = self.server.upstream.usage
        return {
            "id": f"msg_{id(body)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": prompt, "output_tokens": completion},
        }

    def _content(self, text: str, *, last: bool) -> dict[str, Any]:
        prompt, completion = self.server.upstream.usage
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        answer: dict[str, Any] = {"candidates": [candidate], "modelVersion": "gate"}
        if last:
            candidate["finishReason"] = "STOP"
            answer["usageMetadata"] = {
                "promptTokenCount": prompt,
                "candidatesTokenCount": completion,
                "totalTokenCount": prompt + completion,
            }
        return answer

    def _picture(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"created": 1, "data": [{"url": "http://x/1.png"}] * int(body.get("n") or 1)}

    def _pages(self, body: dict[str, Any]) -> dict[str, Any]:
        pages = [{"index": n, "markdown": "hi", "images": [], "dimensions": None} for n in range(PAGES)]
        usage = {"pages_processed": PAGES, "doc_size_bytes": 10}
        return {"pages": pages, "model": body["model"], "usage_info": usage, "object": "ocr"}

    def events(self, body: dict[str, Any]) -> Iterator[str]:
        if self._kind == "responses":
            yield from map(_named, self._response_events(body))
        elif self._kind == "messages":
            yield from map(_named, self._message_events(body))
        elif "enerateContent" in self.path:
            for word in WORDS:
                yield f"data: {json.dumps(self._content(word, last=False))}\n\n"
            yield f"data: {json.dumps(self._content('', last=True))}\n\n"
        else:
            yield from super().events(body)

    def _response_events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        whole = self._response(body)
        yield {
            "type": "response.created",
            "sequence_number": 0,
            "response": {**whole, "status": "in_progress", "usage": None, "output": []},
        }
        for number, word in enumerate(WORDS):
            yield {
                "type": "response.output_text.delta",
                "item_id": "m",
                "output_index": 0,
                "content_index": 0,
                "delta": word,
                "sequence_number": number + 1,
                "logprobs": [],
            }
        yield {"type": "response.completed", "sequence_number": 9, "response": whole}

    def _message_events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        whole = self._message(body)
        start = {**whole, "content": [], "stop_reason": None}
        start["usage"] = {"input_tokens": whole["usage"]["input_tokens"], "output_tokens": 1}
        yield {"type": "message_start", "message": start}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for word in WORDS:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        yield {"type": "content_block_stop", "index": 0}
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": whole["usage"]["output_tokens"]},
        }
        yield {"type": "message_stop"}


def _named(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
