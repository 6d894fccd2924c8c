"""Reading usage and text out of whatever LiteLLM or a provider answered with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
    return getattr(value, name, None)


def _number(value: object) -> int | None:
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
        usage = _from_anthropic(usage)
    read, wrote = _number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens"))
    total = _number(usage.get("total_tokens"))
    if read is None and wrote is None and total:
        read = total
    if not read and not wrote:
        return None
    return Counted(read or 0, wrote or 0, {**usage, "prompt_tokens": read or 0, "completion_tokens": wrote or 0})


def _from_anthropic(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    caches = {name: _number(usage.get(name)) or 0 for name in _CACHE_FIELDS}
    # Anthropic counts cached input beside input_tokens, LiteLLM inside prompt_tokens.
    read = (_number(usage.get("input_tokens")) or 0) + sum(caches.values())
    kept = {name: value for name, value in caches.items() if value}
    return {"prompt_tokens": read, "completion_tokens": _number(usage.get("output_tokens")) or 0, **kept}


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


def chunks_usage(chunks: Sequence[object]) -> Counted | None:
    """The usage that a stream reported, the largest of each count: Anthropic reports input first and output last."""
    found = [usage for usage in map(read_usage, chunks) if usage is not None]
    if not found:
        return None
    read, wrote = max(usage.input for usage in found), max(usage.output for usage in found)
    merged: dict[str, Any] = {}
    for usage in found:
        merged.update({name: value for name, value in usage.raw.items() if value})
    return Counted(read, wrote, {**merged, "prompt_tokens": read, "completion_tokens": wrote})


def is_finished(chunks: Sequence[object]) -> bool:
    """Whether a stream came to its end in every choice that it opened."""
    opened: set[object] = set()
    ended: set[object] = set()
    for chunk in chunks:
        choices = field(chunk, "choices")
        for choice in choices if isinstance(choices, (list, tuple)) else ():
            index = field(choice, "index")
            opened.add(index)
            if field(choice, "finish_reason"):
                ended.add(index)
    return bool(opened) and opened == ended


def parse_raw(original: object) -> object:
    """The answer behind `Logging.post_call`'s original_response: a dictionary, an object, or JSON text; else None."""
    if isinstance(original, (str, bytes)):
        try:
            return json.loads(original)
        except (ValueError, RecursionError):
            return None
    return original
