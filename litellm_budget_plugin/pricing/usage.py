"""Reading usage and text out of whatever LiteLLM or a provider answered with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

_TEXT_FIELDS = ("content", "reasoning_content", "refusal")
_CACHE_FIELDS = ("cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens that a provider reported. `raw` keeps the details for pricing."""

    input: int
    output: int
    raw: Mapping[str, Any]


def field(value: object, name: str) -> Any:
    """A field of a dictionary or an object; None where there is none."""
    if isinstance(value, Mapping):
        return value.get(name)
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001  # somebody else's property: what a call did cost is found out all the same
        return None


def number(value: object) -> int | None:
    """A count of tokens; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """An object with fields as a dictionary without the unset ones."""
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if item is not None}
    for name in ("model_dump", "dict"):
        dump = getattr(value, name, None)
        if callable(dump):
            with suppress(Exception):
                found = dump()
                if isinstance(found, Mapping):
                    return {key: item for key, item in found.items() if item is not None}
    return None


def read_usage(answer: object) -> Counted | None:
    """The usage of an answer in OpenAI's or Anthropic's form; None when absent or all zero."""
    usage = as_mapping(field(answer, "usage"))
    if not usage:
        return None
    if "input_tokens" in usage and "prompt_tokens" not in usage:
        return _from_anthropic(usage)
    read, wrote = number(usage.get("prompt_tokens")), number(usage.get("completion_tokens"))
    total = number(usage.get("total_tokens"))
    if read is None and wrote is None and total:
        read = total
    return counted(read or 0, wrote or 0, usage)


def counted(read: int, wrote: int, raw: Mapping[str, Any]) -> Counted | None:
    """Tokens with their details; None where both are 0."""
    if not read and not wrote:
        return None
    return Counted(read, wrote, {**raw, "prompt_tokens": read, "completion_tokens": wrote})


def _from_anthropic(usage: Mapping[str, Any]) -> Counted | None:
    """Anthropic counts cached input beside input_tokens, LiteLLM inside prompt_tokens."""
    import litellm

    with suppress(Exception):
        raw = litellm.AnthropicConfig().calculate_usage(usage_object=usage, reasoning_content=None).model_dump()
        return counted(raw["prompt_tokens"], raw["completion_tokens"], as_mapping(raw) or {})
    caches = {name: number(usage.get(name)) or 0 for name in _CACHE_FIELDS}
    read = (number(usage.get("input_tokens")) or 0) + sum(caches.values())
    return counted(
        read, number(usage.get("output_tokens")) or 0, {name: value for name, value in caches.items() if value}
    )


def _message_text(message: object) -> Iterator[str]:
    for name in _TEXT_FIELDS:
        value = field(message, name)
        if isinstance(value, str):
            yield value
    calls = field(message, "tool_calls")
    single = field(message, "function_call")
    functions = [field(call, "function") for call in calls] if isinstance(calls, (list, tuple)) else []
    for function in (*functions, single):
        for name in ("name", "arguments"):
            value = field(function, name)
            if isinstance(value, str):
                yield value


def answer_text(answer: object, part: str = "message") -> list[str]:
    """Everything that a model wrote: content, reasoning and tool calls of all choices. `part` is "delta" in streams."""
    found: list[str] = []
    choices = field(answer, "choices")
    for choice in choices if isinstance(choices, (list, tuple)) else ():
        found.extend(_message_text(field(choice, part)))
        text = field(choice, "text")
        if isinstance(text, str):
            found.append(text)
    return found


@dataclass(slots=True)
class Received:
    """A stream as far as it came."""

    texts: list[str] = dataclass_field(default_factory=list)
    usage: Counted | None = None
    """The largest of each count: Anthropic reports input first and output last."""
    finished: bool = False
    model: str | None = None
    answer: object = None
    """The whole answer, where the last event carries it."""

    def count(self, found: Counted | None) -> None:
        """Take in the usage of one more event."""
        if found is None:
            return
        if self.usage is not None:
            merged = {**self.usage.raw, **{name: value for name, value in found.raw.items() if value}}
            read, wrote = max(self.usage.input, found.input), max(self.usage.output, found.output)
            found = Counted(read, wrote, {**merged, "prompt_tokens": read, "completion_tokens": wrote})
        self.usage = found

    def name(self, chunk: object) -> None:
        """Take in the name of the model that answers; the last one counts."""
        name = field(chunk, "model")
        self.model = name if isinstance(name, str) and name else self.model


def receive_choices(chunks: Sequence[object]) -> Received:
    """The chunks of a chat or text completion. It is finished when every choice that it opened is."""
    received = Received()
    opened: set[object] = set()
    ended: set[object] = set()
    for chunk in chunks:
        received.name(chunk)
        received.count(read_usage(chunk))
        received.texts.extend(answer_text(chunk, "delta"))
        choices = field(chunk, "choices")
        for choice in choices if isinstance(choices, (list, tuple)) else ():
            index = field(choice, "index")
            opened.add(index)
            if field(choice, "finish_reason"):
                ended.add(index)
    received.finished = bool(opened) and opened == ended
    return received


def events(chunks: Sequence[object]) -> Iterator[object]:
    """The events of a stream: objects as they are, and server-sent events put together from bytes and text, of which one
    chunk may hold several, or a part of one.
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


def parse_raw(original: object) -> object:
    """The answer behind `Logging.post_call`'s original_response: a dictionary, an object, or JSON text; else None."""
    if isinstance(original, (str, bytes)):
        try:
            return json.loads(original)
        except (ValueError, RecursionError):
            return None
    return original
