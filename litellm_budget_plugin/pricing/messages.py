"""Anthropic's Messages API, `litellm.anthropic.messages`: what goes in, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm_budget_plugin.pricing.measure import PER_CALL, PER_MESSAGE, PROVIDER_CALL, Measure
from litellm_budget_plugin.pricing.output import Asked, budget, token_limit
from litellm_budget_plugin.pricing.usage import Received, as_mapping, events, field, read_usage

_UNSEEN = ("container", "mcp_servers", "context_management", "extra_body")
_FORMATS = ("output_format", "output_config")


def read(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """The system prompt, the messages and the declared tools. Thinking lies inside max_tokens."""
    measure.text += PER_CALL + PROVIDER_CALL.get(measure.provider or "", 0)
    if params.get("system"):
        measure.text += PER_MESSAGE
        measure.add_content(params["system"])
    measure.add_messages(params.get("messages"))
    if params.get("tools"):
        measure.add_tools(params["tools"])
    for name in _FORMATS:
        if params.get(name):
            measure.add_tools([{"name": "", "schema": params[name]}])
    for name in _UNSEEN:
        if params.get(name):
            measure.add_unknown(params[name])
    measure.caches = measure.caches or bool(params.get("cache_control") or params.get("cache_control_injection_points"))
    return Asked(
        limit=token_limit(params.get("max_tokens")),
        thinking=budget(params.get("thinking")),
        tools=params.get("tools"),
    )


def texts_of(answer: object) -> list[str]:
    """Everything that a model wrote: text, thinking and the input of tools."""
    content = field(answer, "content")
    blocks = content if isinstance(content, (list, tuple)) else ()
    return [text for block in blocks for text in _block_texts(block)]


def _block_texts(block: object) -> Iterator[str]:
    for name in ("text", "thinking", "name", "partial_json"):
        value = field(block, name)
        if isinstance(value, str):
            yield value
    given = field(block, "input")
    if given:
        yield json.dumps(given, default=repr, skipkeys=True)


def receive(chunks: Sequence[object]) -> Received:
    """The events of a stream: input is counted in the first, output in the last, and later counts take the place of earlier
    ones.
    """
    received = Received()
    counts: dict[str, Any] = {}
    for event in events(chunks):
        kind = field(event, "type")
        if kind == "message_start":
            received.name(field(event, "message"))
            counts.update(as_mapping(field(field(event, "message"), "usage")) or {})
        elif kind == "content_block_start":
            received.texts.extend(_block_texts(field(event, "content_block")))
        elif kind == "content_block_delta":
            received.texts.extend(_block_texts(field(event, "delta")))
        elif kind == "message_delta":
            counts.update(as_mapping(field(event, "usage")) or {})
            received.finished = received.finished or bool(field(field(event, "delta"), "stop_reason"))
        elif kind == "message_stop":
            received.finished = True
    if counts:
        received.usage = read_usage({"usage": counts})
    return received
