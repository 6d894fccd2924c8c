"""OpenAI's Responses API, `litellm.responses`: what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm_budget_plugin.pricing.usage import (
    Counted,
    Received,
    as_mapping,
    counted,
    events,
    field,
    number,
    read_usage,
)

_LAST = ("response.completed", "response.incomplete", "response.failed", "response.done")
# Sound and pictures come as base64.
_NOT_TEXT = ("audio.delta", "image")


def usage_of(answer: object) -> Counted | None:
    """The usage of an answer. Here, unlike in Anthropic's, input_tokens holds the cached ones."""
    usage = as_mapping(field(answer, "usage"))
    if not usage or "input_tokens" not in usage:
        return read_usage(answer)
    raw = {"total_tokens": usage.get("total_tokens"), "service_tier": field(answer, "service_tier")}
    for side, name in (("input", "prompt"), ("output", "completion")):
        # Realtime sessions say input_token_details.
        details = as_mapping(usage.get(f"{side}_tokens_details")) or as_mapping(usage.get(f"{side}_token_details"))
        if details:
            raw[f"{name}_tokens_details"] = details
    return counted(number(usage.get("input_tokens")) or 0, number(usage.get("output_tokens")) or 0, raw)


def texts_of(answer: object) -> list[str]:
    """Everything that a model wrote: messages, reasoning and the calls of tools."""
    return [text for item in _listed(field(answer, "output")) for text in _item_texts(item) if isinstance(text, str)]


def _item_texts(item: object) -> Iterator[object]:
    for name in ("name", "arguments", "input", "code"):
        yield field(item, name)
    for inner in ("content", "summary"):
        for part in _listed(field(item, inner)):
            for name in ("text", "refusal", "transcript"):
                yield field(part, name)


def receive(chunks: Sequence[object]) -> Received:
    """The events of a stream; the last one carries the whole answer with its usage."""
    received = Received()
    for event in events(chunks):
        kind = str(getattr(field(event, "type"), "value", field(event, "type")))
        answer = field(event, "response")
        if answer is not None:
            received.name(answer)
        delta = field(event, "delta")
        if kind in _LAST:
            received.count(usage_of(answer))
            received.finished, received.answer = True, answer
        elif kind.endswith(".delta") and isinstance(delta, str) and not any(word in kind for word in _NOT_TEXT):
            received.texts.append(delta)
    return received


def receive_session(chunks: Sequence[object]) -> Received:
    """The events of a realtime session, whose answers are added up."""
    received = receive(chunks)
    answers = [
        usage_of(field(event, "response")) for event in events(chunks) if field(event, "type") == "response.done"
    ]
    found = [usage for usage in answers if usage is not None]
    if found:
        raw: dict[str, Any] = {}
        for usage in found:
            raw = _sum(raw, usage.raw)
        received.usage = Counted(sum(usage.input for usage in found), sum(usage.output for usage in found), raw)
    return received


def _sum(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    total = dict(first)
    for name, value in second.items():
        if isinstance(value, Mapping):
            total[name] = _sum(total.get(name) or {}, value)
        elif number(value) is not None:
            total[name] = (number(total.get(name)) or 0) + value
        else:
            total.setdefault(name, value)
    return total


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()
