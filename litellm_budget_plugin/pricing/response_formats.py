"""The answers of each family that is billed by tokens: their usage, text and streams. They are LiteLLM's objects,
dictionaries or bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from litellm_budget_plugin.pricing.usage import (
    TokenUsage,
    as_mapping,
    field,
    first,
    number,
    read_usage,
    stated_cost,
    token_usage,
)
from litellm_budget_plugin.pricing.values import Request

_TEXT_FIELDS = ("content", "reasoning_content", "refusal")
_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed", "response.done")
# Sound and pictures are base64.
_NOT_TEXT = ("audio.delta", "image")


@dataclass(slots=True)
class Received:
    """The part of a stream that was received."""

    texts: list[str] = dataclass_field(default_factory=list)
    usage: TokenUsage | None = None
    """The largest of each count: Anthropic reports input first and output last."""
    finished: bool = False
    model: str | None = None
    answer: object = None
    """The whole answer, if the last event carries it."""

    def count(self, found: TokenUsage | None) -> None:
        """Add the usage of one more event."""
        if found is None:
            return
        if self.usage is not None:
            merged = {**self.usage.raw, **{name: value for name, value in found.raw.items() if value}}
            read, wrote = max(self.usage.input, found.input), max(self.usage.output, found.output)
            found = token_usage(read, wrote, merged, found.cost or self.usage.cost)
        self.usage = found

    def name(self, chunk: object) -> None:
        """Note the name of the answering model. The last one counts."""
        name = first(chunk, "model", "modelVersion", "model_version")
        self.model = name if isinstance(name, str) and name else self.model


class ResponseFormat(NamedTuple):
    """The format of one API's answers."""

    usage: Callable[[object], TokenUsage | None]
    texts: Callable[[object], list[str]]
    receive: Callable[[Sequence[object]], Received]
    call_type: str
    """LiteLLM's name of the family."""


def response_format(request: Request, answer: object = None) -> ResponseFormat:
    """Return the format of an answer, or of the chunks that begin with `answer`. It is that of the request's family,
    unless LiteLLM has used another API and reports that API's answers.
    """
    own = _FORMATS.get(request.call_type, _CHAT)
    if request.call_type == "realtime":
        return own
    if field(answer, "object") == "response" or _kind(answer).startswith("response."):
        return _FORMATS["responses"]
    return _CHAT if own.receive is not _receive_chat and field(answer, "choices") is not None else own


def usage_in(answer: Mapping[str, Any]) -> TokenUsage | None:
    """Return the usage of a raw answer of any API. The fields tell which API it is."""
    if "usageMetadata" in answer:
        return _google_usage(answer)
    details = field(answer.get("usage"), "input_tokens_details")
    return read_usage(answer) if details is None else _responses_usage(answer)


def events(chunks: Sequence[object]) -> Iterator[object]:
    """Yield the events of a stream: objects unchanged, and server-sent events put together from bytes and text. One
    chunk may hold several events, or a part of one.
    """
    text = ""
    for chunk in chunks:
        if isinstance(chunk, (bytes, bytearray)):
            text += bytes(chunk).decode("utf-8", "surrogateescape")
        elif isinstance(chunk, str):
            text += chunk
        elif chunk is not None:
            yield chunk
        if isinstance(chunk, (bytes, bytearray, str)):
            *lines, text = text.split("\n")
            yield from filter(None, map(_event, lines))
    last = _event(text)
    if last is not None:
        yield last


def _event(line: str) -> object:
    line = line.strip().removeprefix("data:").strip()
    if not line.startswith(("{", "[")):
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(line, strict=False)
    return None


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _kind(event: object) -> str:
    kind = field(event, "type")
    return str(getattr(kind, "value", kind))


def _strings(value: object, *names: str) -> Iterator[str]:
    yield from (text for name in names if isinstance(text := field(value, name), str))


def _chat_texts(answer: object, part: str = "message") -> list[str]:
    found: list[str] = []
    for choice in _listed(field(answer, "choices")):
        message = field(choice, part)
        found.extend(_strings(message, *_TEXT_FIELDS))
        calls = [field(call, "function") for call in _listed(field(message, "tool_calls"))]
        for function in (*calls, field(message, "function_call")):
            found.extend(_strings(function, "name", "arguments"))
        found.extend(_strings(choice, "text"))
    return found


def _receive_chat(chunks: Sequence[object]) -> Received:
    """A stream of chat or text is finished when every choice that it has opened is finished."""
    received = Received()
    opened: set[object] = set()
    ended: set[object] = set()
    for chunk in events(chunks):
        received.name(chunk)
        received.count(read_usage(chunk))
        received.texts.extend(_chat_texts(chunk, "delta"))
        for choice in _listed(field(chunk, "choices")):
            opened.add(field(choice, "index"))
            if field(choice, "finish_reason"):
                ended.add(field(choice, "index"))
    received.finished = bool(opened) and opened == ended
    return received


def _messages_texts(answer: object) -> list[str]:
    return [text for block in _listed(field(answer, "content")) for text in _block_texts(block)]


def _block_texts(block: object) -> Iterator[str]:
    yield from _strings(block, "text", "thinking", "name", "partial_json")
    given = field(block, "input")
    if given:
        yield json.dumps(given, default=repr, skipkeys=True)


def _receive_messages(chunks: Sequence[object]) -> Received:
    """Anthropic counts the input in the first event and the output in the last. Later counts replace earlier ones."""
    received = Received()
    counts: dict[str, Any] = {}
    for event in events(chunks):
        kind = _kind(event)
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


def _responses_usage(answer: object) -> TokenUsage | None:
    """Return the usage of the Responses API. Its input_tokens include the cached ones, unlike Anthropic's."""
    usage = as_mapping(field(answer, "usage"))
    if not usage or "input_tokens" not in usage:
        return read_usage(answer)
    from litellm.responses.utils import ResponseAPILoggingUtils

    # Realtime sessions say input_token_details.
    spelled = {name.replace("put_token_details", "put_tokens_details"): value for name, value in usage.items()}
    read, wrote = number(usage.get("input_tokens")) or 0, number(usage.get("output_tokens")) or 0
    raw: Mapping[str, Any] = {}
    with suppress(Exception):
        transform = ResponseAPILoggingUtils._transform_response_api_usage_to_chat_usage  # noqa: SLF001
        raw = as_mapping(transform({**spelled, "input_tokens": read, "output_tokens": wrote})) or {}
    tier = field(answer, "service_tier")
    return token_usage(read, wrote, {**raw, "service_tier": tier} if tier else raw, stated_cost(usage))


def _responses_texts(answer: object) -> list[str]:
    found: list[str] = []
    for item in _listed(field(answer, "output")):
        found.extend(_strings(item, "name", "arguments", "input", "code"))
        for inner in ("content", "summary"):
            for part in _listed(field(item, inner)):
                found.extend(_strings(part, "text", "refusal", "transcript"))
    return found


def _receive_responses(chunks: Sequence[object]) -> Received:
    """The last event carries the whole answer with its usage. In a realtime session every answer has one, and they are
    added.
    """
    received = Received()
    usages: dict[object, TokenUsage] = {}
    for event in events(chunks):
        kind, answer, delta = _kind(event), field(event, "response"), field(event, "delta")
        received.name(answer)
        if kind in _LAST_EVENTS:
            usage = _responses_usage(answer)
            if usage is not None:
                # Every answer of a session is billed. In a stream, one answer is billed, however often its end is
                # reported.
                usages[len(usages) if kind == "response.done" else field(answer, "id")] = usage
            received.finished, received.answer = True, answer
        elif kind.endswith(".delta") and isinstance(delta, str) and not any(word in kind for word in _NOT_TEXT):
            received.texts.append(delta)
    received.usage = _added(list(usages.values()))
    return received


def _added(usages: Sequence[TokenUsage]) -> TokenUsage | None:
    if len(usages) < 2:
        return usages[0] if usages else None
    raw: dict[str, Any] = {}
    for usage in usages:
        raw = _sum(raw, usage.raw)
    costs = [usage.cost for usage in usages if usage.cost is not None]
    # The costs add up to that of the session only if every answer states one.
    cost = sum(costs) if len(costs) == len(usages) else None
    return TokenUsage(sum(usage.input for usage in usages), sum(usage.output for usage in usages), raw, cost)


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


def _google_usage(answer: object) -> TokenUsage | None:
    """Return Google's usage. Some APIs count thoughts as candidates and some count them separately. LiteLLM tells them
    apart.
    """
    usage = _camel(as_mapping(first(answer, "usageMetadata", "usage_metadata")))
    if not usage:
        return read_usage(answer)
    import litellm
    from litellm import cost_calculator

    config = litellm.VertexGeminiConfig
    with suppress(Exception):
        # LiteLLM has no public name for these on its older versions.
        found: Any = config._calculate_usage({"usageMetadata": usage})  # noqa: SLF001
        groundings = [first(candidate, "groundingMetadata", "grounding_metadata") for candidate in _candidates(answer)]
        config._set_grounding_usage_counters(found, [_camel(as_mapping(each)) for each in groundings if each])  # noqa: SLF001
        tier = cost_calculator._map_traffic_type_to_service_tier(usage.get("trafficType"))  # noqa: SLF001
        raw = as_mapping(found) or {}
        return token_usage(found.prompt_tokens, found.completion_tokens, {**raw, "service_tier": tier} if tier else raw)
    read = number(usage.get("promptTokenCount")) or 0
    return token_usage(read, max((number(usage.get("totalTokenCount")) or 0) - read, 0), {})


def _camel(value: Any) -> Any:
    """Return names as Google's API has them. In its SDK's objects they have underscores."""
    if isinstance(value, Mapping):
        return {
            re.sub(r"_(\w)", lambda found: found[1].upper(), str(name)): _camel(item) for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_camel(as_mapping(item) or item) for item in value]
    return getattr(value, "value", value)


def _candidates(answer: object) -> Sequence[Any]:
    return _listed(field(answer, "candidates"))


def _google_texts(answer: object) -> list[str]:
    found: list[str] = []
    for candidate in _candidates(answer):
        for part in _listed(field(field(candidate, "content"), "parts")):
            found.extend(_strings(part, "text"))
            call = as_mapping(first(part, "functionCall", "function_call"))
            if call:
                found.append(json.dumps(call, default=repr, skipkeys=True))
    return found


def _receive_google(chunks: Sequence[object]) -> Received:
    """Each chunk counts what was read and written so far, and the last gives a reason."""
    received = Received()
    for event in events(chunks):
        for chunk in event if isinstance(event, list) else (event,):
            received.name(chunk)
            received.count(_google_usage(chunk))
            received.texts.extend(_google_texts(chunk))
            ended = [first(candidate, "finishReason", "finish_reason") for candidate in _candidates(chunk)]
            received.finished = received.finished or any(ended)
    return received


_CHAT = ResponseFormat(read_usage, _chat_texts, _receive_chat, "completion")
_RESPONSES = ResponseFormat(_responses_usage, _responses_texts, _receive_responses, "responses")
_FORMATS = {
    "completion": _CHAT,
    "text_completion": _CHAT._replace(call_type="text_completion"),
    "embedding": _CHAT._replace(call_type="embedding"),
    "responses": _RESPONSES,
    "messages": ResponseFormat(read_usage, _messages_texts, _receive_messages, "anthropic_messages"),
    "generate_content": ResponseFormat(_google_usage, _google_texts, _receive_google, "generate_content"),
    "realtime": _RESPONSES._replace(call_type="completion"),
}
