"""Google's generateContent, `litellm.google_genai`: what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm_budget_plugin.pricing.input_size import as_dict
from litellm_budget_plugin.pricing.usage import Counted, Received, counted, events, field, number, read_usage


def _first(source: Mapping[str, Any], *names: str) -> Any:
    return next((source[name] for name in names if source.get(name) is not None), None)


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def usage_of(answer: object) -> Counted | None:
    """The usage of an answer, as LiteLLM reads it: litellm/llms/vertex_ai/gemini, `_calculate_usage`."""
    usage = as_dict(_first_field(answer, "usageMetadata", "usage_metadata"))
    if not usage:
        return read_usage(answer)
    prompt, wrote = _count(usage, "promptTokenCount"), _count(usage, "candidatesTokenCount")
    thought, cached = _count(usage, "thoughtsTokenCount"), _count(usage, "cachedContentTokenCount")
    searches = _searches(answer)
    # The input of a tool is billed beside the prompt, but for searches, which have a price of their own.
    read = prompt + (0 if searches else _count(usage, "toolUsePromptTokenCount"))
    kinds = _modalities(usage, "promptTokensDetails")
    for kind, tokens in _modalities(usage, "cacheTokensDetails").items():
        kinds[kind] = max(kinds.get(kind, 0) - tokens, 0)
    # Some count thoughts as candidates already: then the two sides make the total.
    inclusive = prompt + wrote == _count(usage, "totalTokenCount")
    raw = {
        "prompt_tokens_details": {**kinds, "cached_tokens": cached, "web_search_requests": searches or None},
        "completion_tokens_details": {**_modalities(usage, "candidatesTokensDetails"), "reasoning_tokens": thought},
    }
    return counted(read, wrote if inclusive else wrote + thought, raw)


def _first_field(value: object, *names: str) -> Any:
    return next((found for name in names if (found := field(value, name)) is not None), None)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _count(usage: Mapping[str, Any], name: str) -> int:
    return number(_first(usage, name, _snake(name))) or 0


def _modalities(usage: Mapping[str, Any], name: str) -> dict[str, int]:
    """Tokens of sound, images and videos; text is the rest."""
    found: dict[str, int] = {}
    for detail in _listed(_first(usage, name, _snake(name))):
        kind = str(getattr(field(detail, "modality"), "value", field(detail, "modality"))).lower()
        if kind in ("audio", "image", "video"):
            tokens = number(_first_field(detail, "tokenCount", "token_count")) or 0
            found[f"{kind}_tokens"] = found.get(f"{kind}_tokens", 0) + tokens
    return found


def _candidates(answer: object) -> list[Any]:
    return _listed(field(answer, "candidates"))


def _searches(answer: object) -> int:
    found = 0
    for candidate in _candidates(answer):
        grounding = _first_field(candidate, "groundingMetadata", "grounding_metadata")
        found += len(_listed(_first_field(grounding, "webSearchQueries", "web_search_queries")))
    return found


def texts_of(answer: object) -> list[str]:
    """Everything that a model wrote: text, thoughts and the calls of functions."""
    return [text for candidate in _candidates(answer) for text in _candidate_texts(candidate)]


def _candidate_texts(candidate: object) -> Iterator[str]:
    for part in _listed(field(field(candidate, "content"), "parts")):
        text = field(part, "text")
        if isinstance(text, str):
            yield text
        call = as_dict(_first_field(part, "functionCall", "function_call"))
        if call:
            yield json.dumps(call, default=repr, skipkeys=True)


def receive(chunks: Sequence[object]) -> Received:
    """The chunks of a stream; each counts what was read and written so far, and the last gives a reason."""
    received = Received()
    for event in events(chunks):
        for chunk in event if isinstance(event, list) else (event,):
            name = _first_field(chunk, "modelVersion", "model_version")
            received.model = name if isinstance(name, str) and name else received.model
            received.count(usage_of(chunk))
            received.texts.extend(texts_of(chunk))
            ended = [_first_field(candidate, "finishReason", "finish_reason") for candidate in _candidates(chunk)]
            received.finished = received.finished or any(ended)
    return received
