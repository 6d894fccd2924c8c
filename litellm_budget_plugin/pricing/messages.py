"""Anthropic's Messages API, `litellm.anthropic.messages`: what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from litellm_budget_plugin.pricing.usage import Received, as_mapping, events, field, read_usage


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
