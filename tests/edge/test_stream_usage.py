"""A stream reports its usage, and its caller sees the same chunks as without this package."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import litellm
import pytest
from litellm import Router
from litellm.google_genai.adapters import handler as adapter

from litellm_budget_plugin import BudgetCallback
from tests.edge.desk import Edge
from tests.edge.provider import OUTPUT, BillingProvider

MESSAGES = [{"role": "user", "content": "x"}]
CONTENTS = [{"role": "user", "parts": [{"text": "x"}]}]
TOKENS = 400
"""Billed for every answer. Five words of it are text, the rest is reasoning that no chunk shows."""


class Stream(NamedTuple):
    """A way to get a stream. `asks`: the provider reports the usage only if it is asked for."""

    function: Callable[..., Any]
    model: str
    arguments: dict[str, Any]
    awaited: bool = False
    asks: bool = True

    def begin(self, provider: BillingProvider, **more: Any) -> Any:
        """Return the stream, or an awaitable of it."""
        arguments = {
            "model": self.model,
            "api_base": provider.base(self.model),
            "api_key": "sk-test",
            "litellm_metadata": {"budget_user": "alice"},
            **self.arguments,
            **more,
        }
        if self.model.startswith("azure"):
            arguments["api_version"] = "2024-06-01"
        return self.function(**arguments)


def _routed(name: str) -> Callable[..., Any]:
    """Return the function of a Router with one deployment."""

    def start(*, model: str, api_base: str, api_key: str, **arguments: Any) -> Any:
        params = {"model": model, "api_base": api_base, "api_key": api_key, "max_retries": 0}
        router = Router([{"model_name": "group", "litellm_params": params}], num_retries=0, disable_cooldowns=True)
        return getattr(router, name)(model="group", **arguments)

    return start


_CHAT: dict[str, Any] = {"messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
_TEXT: dict[str, Any] = {"prompt": "x", "max_tokens": TOKENS, "stream": True}
_RESPONSE: dict[str, Any] = {"input": "x", "max_output_tokens": TOKENS, "stream": True}
_GENERATE: dict[str, Any] = {"contents": CONTENTS, "config": {"max_output_tokens": TOKENS}}
_TEXT_MODEL = "text-completion-openai/edge-text"
google = litellm.google_genai
STREAMS = {
    "openai": Stream(litellm.completion, "openai/edge-chat", _CHAT),
    "openai, awaited": Stream(litellm.acompletion, "openai/edge-chat", _CHAT, awaited=True),
    "azure": Stream(litellm.completion, "azure/edge-azure", _CHAT),
    "azure, awaited": Stream(litellm.acompletion, "azure/edge-azure", _CHAT, awaited=True),
    "vllm": Stream(litellm.completion, "hosted_vllm/edge-vllm", _CHAT),
    "vllm, awaited": Stream(litellm.acompletion, "hosted_vllm/edge-vllm", _CHAT, awaited=True),
    "text": Stream(litellm.text_completion, _TEXT_MODEL, _TEXT),
    "text, awaited": Stream(litellm.atext_completion, _TEXT_MODEL, _TEXT, awaited=True),
    "text by chat": Stream(litellm.text_completion, "openai/edge-chat", _TEXT),
    "text by chat, awaited": Stream(litellm.atext_completion, "openai/edge-chat", _TEXT, awaited=True),
    "router": Stream(_routed("completion"), "openai/edge-chat", _CHAT),
    "router, awaited": Stream(_routed("acompletion"), "openai/edge-chat", _CHAT, awaited=True),
    "responses by chat": Stream(litellm.responses, "deepseek/edge-deep", _RESPONSE),
    "responses by chat, awaited": Stream(litellm.aresponses, "deepseek/edge-deep", _RESPONSE, awaited=True),
    "messages by chat": Stream(litellm.anthropic.messages.acreate, "hosted_vllm/edge-vllm", _CHAT, awaited=True),
    # LiteLLM's own synchronous function returns an asynchronous generator here.
    "generate_content by chat": Stream(
        google.agenerate_content_stream,
        "hosted_vllm/edge-vllm",
        {"contents": CONTENTS, "config": {"maxOutputTokens": TOKENS}},
        awaited=True,
    ),
    "anthropic": Stream(litellm.completion, "anthropic/edge-claude", _CHAT, asks=False),
    "anthropic, awaited": Stream(litellm.acompletion, "anthropic/edge-claude", _CHAT, awaited=True, asks=False),
    "gemini": Stream(litellm.completion, "gemini/edge-gemini", _CHAT, asks=False),
    "gemini, awaited": Stream(litellm.acompletion, "gemini/edge-gemini", _CHAT, awaited=True, asks=False),
    "responses": Stream(litellm.responses, "openai/edge-chat", _RESPONSE, asks=False),
    "responses, awaited": Stream(litellm.aresponses, "openai/edge-chat", _RESPONSE, awaited=True, asks=False),
    "messages": Stream(litellm.anthropic.messages.acreate, "anthropic/edge-claude", _CHAT, awaited=True, asks=False),
    "generate_content": Stream(google.generate_content_stream, "gemini/edge-gemini", _GENERATE, asks=False),
    "generate_content, awaited": Stream(
        google.agenerate_content_stream, "gemini/edge-gemini", _GENERATE, awaited=True, asks=False
    ),
}
if find_spec("backoff") is None:
    # From LiteLLM 1.110 on, a stream of Anthropic's messages imports the proxy, which needs more packages than LiteLLM
    # brings.
    del STREAMS["messages"]
if not hasattr(adapter, "_adapter_stream_options"):
    # This LiteLLM does not pass stream_options on here: docs/guarantees.md, "Streams without usage".
    del STREAMS["generate_content by chat"]
ALL = pytest.mark.parametrize("name", list(STREAMS))
ASKING = pytest.mark.parametrize("name", [name for name, stream in STREAMS.items() if stream.asks])
# The ways in which the caller can set stream_options and LiteLLM passes them on.
OWN = pytest.mark.parametrize(
    "name", [name for name, stream in STREAMS.items() if stream.asks and "by chat" not in name]
)

_NAMED = ("id", "created", "created_at", "completed_at", "item_id", "response_id", "call_id", "system_fingerprint")
_IN_TEXT = re.compile(r"(id-|resp_|msg_|chatcmpl-)[A-Za-z0-9_=-]+|(\"created(_at)?\": ?)\d+")


def _plain(value: Any) -> Any:
    """Return a chunk as data, without the fields that differ from call to call."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, bytes):
        return _IN_TEXT.sub("ID", value.decode())
    if isinstance(value, str):
        return _IN_TEXT.sub("ID", value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in _NAMED}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (int, float, bool, type(None))) else _IN_TEXT.sub("ID", str(value))


def _read(stream: Stream, provider: BillingProvider, most: int | None = None, **more: Any) -> list[Any]:
    """Return the chunks of a stream, all of them or the first `most`."""

    async def awaited() -> list[Any]:
        found: list[Any] = []
        answer = await stream.begin(provider, **more)
        async for chunk in answer:
            found.append(_plain(chunk))
            if len(found) == most:
                break
        return found

    if stream.awaited:
        return _whole(asyncio.run(awaited()))
    chunks: list[Any] = []
    for chunk in stream.begin(provider, **more):
        chunks.append(_plain(chunk))
        if len(chunks) == most:
            break
    return _whole(chunks)


def _whole(chunks: list[Any]) -> list[Any]:
    """Events that LiteLLM passes on as they come from the network can be cut anywhere. They are compared one by one."""
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks).split("\n\n")
    return chunks


def _without_us(stream: Stream, provider: BillingProvider, **more: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return what a caller without a budget sees, and what the provider was sent."""
    litellm.callbacks = []
    # LiteLLM reports a call late, to the callback that is then registered. It must not be charged to Alice.
    chunks = _read(stream, provider, **more, litellm_metadata={"budget_user": "nobody"})
    return chunks, provider.bodies[-1]


def _without_usage(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_usage(inner) for key, inner in value.items() if key != "usage"}
    return [_without_usage(inner) for inner in value] if isinstance(value, list) else value


@ALL
def test_the_caller_sees_the_same_chunks(name: str, provider: BillingProvider, open_edge: Callable[..., Edge]) -> None:
    """The callers are charged what is billed, which no chunk shows."""
    stream = STREAMS[name]
    expected, _ = _without_us(stream, provider)
    provider.clear()
    edge = open_edge(default_limit="1")
    seen = _read(stream, provider)
    if name.startswith("responses by chat"):
        # The last event always contains a usage: without us it is LiteLLM's estimate, with us it may be the provider's.
        expected, seen = _without_usage(expected), _without_usage(seen)
    assert json.dumps(seen, indent=1) == json.dumps(expected, indent=1)
    assert edge.calm("alice") == provider.bill >= TOKENS * OUTPUT


@ASKING
def test_the_provider_is_asked_for_the_usage(name: str, edge: Edge) -> None:
    _read(STREAMS[name], edge.provider)
    assert edge.provider.bodies[-1].get("stream_options", {}).get("include_usage") is True


@ASKING
def test_thoughts_that_no_chunk_shows_are_charged(name: str, open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    _read(STREAMS[name], edge.provider)
    assert edge.calm("alice") == edge.provider.bill
    assert edge.usage("alice").output_tokens == TOKENS


@OWN
@pytest.mark.parametrize("wish", [True, False])
def test_a_caller_who_says_what_he_wants_gets_it(
    name: str, wish: bool, provider: BillingProvider, open_edge: Callable[..., Edge]
) -> None:
    options = {"include_usage": wish}
    expected, _ = _without_us(STREAMS[name], provider, stream_options=dict(options))
    edge = open_edge(default_limit="1")
    given = dict(options)
    seen = _read(STREAMS[name], provider, stream_options=given)
    assert json.dumps(seen, indent=1) == json.dumps(expected, indent=1)
    # The caller's own dictionary is not changed.
    assert given == options
    edge.calm("alice")


@OWN
def test_other_options_of_the_caller_are_kept(
    name: str, provider: BillingProvider, open_edge: Callable[..., Edge]
) -> None:
    options = {"include_obfuscation": False}
    expected, _ = _without_us(STREAMS[name], provider, stream_options=dict(options))
    provider.clear()
    edge = open_edge(default_limit="1")
    seen = _read(STREAMS[name], provider, stream_options=options)
    assert json.dumps(seen, indent=1) == json.dumps(expected, indent=1)
    assert provider.bodies[-1]["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert edge.calm("alice") == provider.bill


@ALL
def test_the_setting_leaves_requests_as_they_are(
    name: str, provider: BillingProvider, open_edge: Callable[..., Edge]
) -> None:
    stream = STREAMS[name]
    expected, body = _without_us(stream, provider)
    edge = open_edge(default_limit="1", stream_usage=False)
    assert _read(stream, provider) == expected
    assert provider.bodies[-1] == body
    edge.calm("alice")


@ALL
def test_a_stream_that_is_dropped_is_charged_for_what_came(name: str, open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    _read(STREAMS[name], edge.provider, most=2)
    assert 0 < edge.calm("alice") <= edge.provider.bill


@pytest.mark.parametrize("model", ["ollama_chat/edge-ollama"])
def test_a_provider_that_does_not_know_the_option_is_not_sent_it(model: str, open_edge: Callable[..., Edge]) -> None:
    edge = open_edge(default_limit="1")
    _read(Stream(litellm.completion, model, _CHAT), edge.provider)
    assert "stream_options" not in edge.provider.bodies[-1]
    assert edge.calm("alice") == edge.provider.bill


def test_calls_that_do_not_stream_are_left_as_they_are(edge: Edge) -> None:
    plain = Stream(litellm.completion, "openai/edge-chat", {**_CHAT, "stream": False})
    plain.begin(edge.provider)
    assert "stream_options" not in edge.provider.bodies[-1]


def test_a_closed_callback_asks_for_nothing(edge: Edge) -> None:
    callback: BudgetCallback = edge.callback
    callback.close()
    _read(STREAMS["vllm"], edge.provider)
    assert "stream_options" not in edge.provider.bodies[-1]
