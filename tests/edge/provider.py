"""A provider on loopback that bills what the request allows: its input, and as much output as the request permits.

Every model has the same two prices. A token of input is a byte of any text that the API reads, which is the worst
result of a tokenizer. The output is the largest limit that the real API honours, once for each requested choice.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import litellm

from tests.surface.provider import _Provider
from tests.upstream import Upstream, Usage

INPUT, OUTPUT = 1_000, 10_000
"""Nano-dollars for a token of input and of output."""

UNLIMITED = 4096
"""The tokens that are written if a request states no limit: the tokens that are held for a call without one."""

SHOWN = 5
"""The text tokens of every answer. The rest is thinking."""

MODELS = {
    "openai/edge-chat": "chat",
    "azure/edge-azure": "chat",
    "hosted_vllm/edge-vllm": "chat",
    "deepseek/edge-deep": "chat",
    "anthropic/edge-claude": "chat",
    "gemini/edge-gemini": "chat",
    "cohere_chat/edge-cohere": "chat",
    "ollama_chat/edge-ollama": "chat",
    "bedrock/edge-bedrock": "chat",
    "text-completion-openai/edge-text": "completion",
    "openai/edge-embed": "embedding",
}
_MODES = {"chat": 10_000, "completion": 10_000, "embedding": 0}

# Fields that a provider reads and never bills: names, switches and marks.
_UNBILLED = frozenset(
    [
        "model",
        "user",
        "role",
        "type",
        "id",
        "name",
        "stream",
        "stream_options",
        "metadata",
        "store",
        "stop",
        "stop_sequences",
        "service_tier",
        "encoding_format",
        "seed",
        "temperature",
        "top_p",
        "top_k",
        "logprobs",
        "truncation",
        "safety_identifier",
        "prompt_cache_key",
        "reasoning_effort",
        "verbosity",
        "include",
        "tool_choice",
        "parallel_tool_calls",
        "response_modalities",
        "modalities",
    ]
)
_OUTPUT_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_CHOICES_NAMES = ("n", "best_of")


def register_models() -> None:
    """Register the prices of every model here in LiteLLM."""
    for name, mode in MODELS.items():
        entry = {
            "input_cost_per_token": INPUT / 1e9,
            "output_cost_per_token": (OUTPUT if _MODES[mode] else 0) / 1e9,
            "litellm_provider": name.partition("/")[0],
            "mode": mode,
            "max_tokens": 65_536,
            "max_output_tokens": 65_536,
            "max_input_tokens": 10_000_000,
        }
        litellm.register_model({name: entry})


def text_bytes(value: object, name: str = "") -> int:
    """Return the bytes of all text in a value, and one for each token id."""
    if name in _UNBILLED:
        return 0
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping):
        return sum(text_bytes(inner, str(key)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return sum(text_bytes(inner) for inner in value)
    return int(isinstance(value, int) and not isinstance(value, bool) and name == "")


def as_count(value: object) -> int:
    """Return a number of tokens or choices, as leniently as the APIs: text that means a number counts as one."""
    try:
        return max(int(float(value)), 0) if isinstance(value, (int, float, str)) else 0
    except (ValueError, OverflowError):
        return 0


def largest(body: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the largest count among some of a body's fields."""
    return max(as_count(body.get(name)) for name in names)


def _openai(body: Mapping[str, Any]) -> Usage:
    wrote = largest(body, _OUTPUT_NAMES) or UNLIMITED
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = len(prompt) if several and isinstance(prompt, list) else 1
    return Usage(text_bytes(body), wrote * max(largest(body, _CHOICES_NAMES), 1) * prompts)


def _anthropic(body: Mapping[str, Any]) -> Usage:
    return Usage(text_bytes(body), as_count(body.get("max_tokens")) or UNLIMITED)


def _google(body: Mapping[str, Any]) -> Usage:
    config: dict[str, Any] = {}
    # Google's JSON accepts either spelling of every field.
    for name in ("generationConfig", "generation_config"):
        config |= body.get(name) or {}
    wrote = largest(config, ("maxOutputTokens", "max_output_tokens")) or UNLIMITED
    return Usage(text_bytes(body), wrote * max(largest(config, ("candidateCount", "candidate_count")), 1))


def _cohere(body: Mapping[str, Any]) -> Usage:
    return Usage(text_bytes(body), as_count(body.get("max_tokens")) or UNLIMITED)


def _ollama(body: Mapping[str, Any]) -> Usage:
    return Usage(text_bytes(body), as_count((body.get("options") or {}).get("num_predict")) or UNLIMITED)


def _bedrock(body: Mapping[str, Any]) -> Usage:
    config, more = body.get("inferenceConfig") or {}, body.get("additionalModelRequestFields") or {}
    return Usage(text_bytes(body), max(as_count(config.get("maxTokens")), largest(more, _OUTPUT_NAMES)) or UNLIMITED)


_READERS: dict[str, Callable[[Mapping[str, Any]], Usage]] = {
    "messages": _anthropic,
    "google": _google,
    "cohere": _cohere,
    "ollama": _ollama,
    "converse": _bedrock,
}


class BillingProvider(Upstream):
    """OpenAI, Azure, vLLM, DeepInfra, Anthropic, Google, Cohere, Ollama and Bedrock on one port, each at its own
    address.

    `bill` is what was served so far, in nano-dollars. `asked` holds the path of each request. `watch` is called with
    each body before it is answered, as the upstream's. `managed` holds answers by the end of a path. These are not
    billed.
    """

    def __init__(self) -> None:
        self._now = threading.local()
        self._unset = Usage(0, 0)
        self.bill = 0
        self.asked: list[str] = []
        self.managed: dict[str, bytes] = {}
        super().__init__(_Billing)

    @property
    def usage(self) -> Usage:
        """The usage that the request which this thread answers is billed."""
        return getattr(self._now, "usage", self._unset)

    @usage.setter
    def usage(self, usage: Usage) -> None:
        self._now.usage = usage

    @property
    def root(self) -> str:
        """The address without a version."""
        return self.url.removesuffix("/v1")

    def base(self, model: str) -> str:
        """Return the `api_base` for calls of a model."""
        provider = model.partition("/")[0]
        return {
            "anthropic": self.root,
            "gemini": self.root,
            "azure": self.root,
            "cohere_chat": f"{self.root}/cohere/v2/chat",
            "ollama_chat": self.root,
            "bedrock": self.root,
        }.get(provider, self.url)

    def clear(self) -> None:
        """Forget everything that was served."""
        with self.lock:
            self.bill = self.requests = 0
            self.asked = []
            self.managed.clear()
            self.bodies.clear()
            self.served.clear()
            self.usages.clear()


class _Billing(_Provider):
    def do_GET(self) -> None:
        """Answer management requests: everything that is asked for exists, and costs nothing. `managed` has the answers
        for some paths.
        """
        upstream = self.server.upstream
        assert isinstance(upstream, BillingProvider)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        with upstream.lock:
            upstream.requests += 1
            upstream.asked.append(path)
        answer = next((made for end, made in upstream.managed.items() if path.endswith(end)), b"{}")
        self._send(200, "application/json", answer)

    do_DELETE = do_PUT = do_PATCH = do_GET  # noqa: N815  # http.server's names

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        upstream = self.server.upstream
        assert isinstance(upstream, BillingProvider)
        if any(path.endswith(end) for end in upstream.managed):
            self.do_GET()
        else:
            super().do_POST()

    @property
    def _api(self) -> str:
        if "enerateContent" in self.path:
            return "google"
        if self.path.startswith("/cohere"):
            return "cohere"
        if self.path.startswith("/api/chat"):
            return "ollama"
        return self._kind

    def read_body(self) -> dict[str, Any]:
        body = super().read_body()
        self.path, _, query = self.path.partition("?")
        found = re.match(r"/(?:model|openai/deployments)/([^/]+)/", self.path)
        if found:
            body["model"] = unquote(found[1])
        upstream = self.server.upstream
        assert isinstance(upstream, BillingProvider)
        read = Usage(text_bytes(body.get("input")), 0) if self._kind == "embeddings" else self._read(body)
        upstream.usage = read
        with upstream.lock:
            upstream.asked.append(f"{self.path}?{query}" if query else self.path)
            upstream.bill += read.prompt * INPUT + read.completion * OUTPUT
        return body

    def _read(self, body: dict[str, Any]) -> Usage:
        return _READERS.get(self._api, _openai)(body)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = self.server.upstream.usage
        if self._api == "cohere":
            return {
                "id": "c",
                "finish_reason": "COMPLETE",
                "message": {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
                "usage": {
                    "billed_units": {"input_tokens": prompt, "output_tokens": completion},
                    "tokens": {"input_tokens": prompt, "output_tokens": completion},
                },
            }
        if self._api == "ollama":
            return {
                "model": body["model"],
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": "hello"},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": prompt,
                "eval_count": completion,
            }
        if self._api == "converse":
            return {
                "output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": prompt, "outputTokens": completion, "totalTokens": prompt + completion},
                "metrics": {"latencyMs": 1},
            }
        return super()._answer(body)

    def _usage(self, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = super()._usage(body)
        # Nearly all of what is billed is thinking, which is in no text.
        thought = max(found["completion_tokens"] - SHOWN, 0)
        return {**found, "completion_tokens_details": {"reasoning_tokens": thought}}

    def _chat_chunks(self, body: dict[str, Any]) -> Iterator[str]:
        """As OpenAI does: callers who ask for the usage get it in a chunk of its own. Without asking it is null."""
        asked = (body.get("stream_options") or {}).get("include_usage") is True
        for chunk in super()._chat_chunks(body):
            found = json.loads(chunk)
            if found["choices"]:
                yield json.dumps({**found, "usage": None}) if asked else chunk
            elif asked:
                yield chunk

    def events(self, body: dict[str, Any]) -> Iterator[str]:
        if self._api == "ollama":
            yield json.dumps({**self._answer(body), "done": False}) + "\n"
            yield json.dumps(self._answer(body)) + "\n"
        else:
            yield from super().events(body)
