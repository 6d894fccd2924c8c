"""Google's generateContent, `litellm.google_genai`: what goes in, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm_budget_plugin.pricing.measure import PER_CALL, PER_MESSAGE, Measure, as_dict, runs_at_caller
from litellm_budget_plugin.pricing.media import attachment, image
from litellm_budget_plugin.pricing.output import Asked, choices, thinking_tokens, token_limit
from litellm_budget_plugin.pricing.usage import Counted, Received, counted, events, field, number, read_usage

_WHOLE = ("functionCall", "function_call", "functionResponse", "function_response", "executableCode", "executable_code")
_BESIDE = frozenset({"thought", "thoughtSignature", "thought_signature", "videoMetadata", "mediaResolution"})


def read(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """The contents, the system instruction and the declared tools. Thoughts lie inside maxOutputTokens."""
    config = as_dict(params.get("config")) or {}
    measure.text += PER_CALL
    for source in (params, config):
        system = _first(source, "systemInstruction", "system_instruction")
        if system is not None:
            _add_contents(measure, system)
    _add_contents(measure, params.get("contents"))
    given = [*_listed(params.get("tools")), *_listed(config.get("tools"))]
    # A Python function among them is declared, called and answered by Google's SDK, which adds what is not seen here.
    tools = [as_dict(tool) or tool for tool in given]
    _add_tools(measure, tools)
    shape = _first(config, "responseSchema", "response_schema", "responseJsonSchema", "response_json_schema")
    if shape is not None:
        measure.add_tools([{"name": "", "schema": as_dict(shape) or repr(shape)}])
    for source in (params, config):
        for name in ("cachedContent", "cached_content", "extra_body"):
            if source.get(name):
                measure.add_unknown(source[name])
    thinking = as_dict(_first(config, "thinkingConfig", "thinking_config")) or {}
    modalities = _first(config, "responseModalities", "response_modalities")
    return Asked(
        limit=token_limit(_first(config, "maxOutputTokens", "max_output_tokens")),
        choices=choices(_first(config, "candidateCount", "candidate_count")),
        thinking=thinking_tokens(_first(thinking, "thinkingBudget", "thinking_budget")),
        speaks="AUDIO" in str(modalities).upper(),
        tools=tools,
    )


def _first(source: Mapping[str, Any], *names: str) -> Any:
    return next((source[name] for name in names if source.get(name) is not None), None)


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _add_tools(measure: Measure, tools: list[Any]) -> None:
    for tool in tools:
        if isinstance(tool, Mapping) and runs_at_caller(tool):
            measure.add_tools(_listed(_first(tool, "functionDeclarations", "function_declarations")))
        elif isinstance(tool, Mapping):
            measure.add_tools([tool])
        else:
            measure.add_unknown(tool)


def _add_contents(measure: Measure, contents: object) -> None:
    for content in _listed(contents):
        measure.text += PER_MESSAGE
        measure.floor += PER_MESSAGE
        shape = None if isinstance(content, str) else as_dict(content)
        if shape is None:
            measure.add_content(content) if isinstance(content, str) else measure.add_unknown(content)
        elif "parts" in shape:
            for part in _listed(shape["parts"]):
                _add_part(measure, part)
        else:
            _add_part(measure, shape)


def _add_part(measure: Measure, given: object) -> None:
    part = {"text": given} if isinstance(given, str) else as_dict(given)
    if part is None:
        measure.add_unknown(given)
        return
    if isinstance(part.get("text"), str):
        measure.add_text(part["text"])
    blob = _first(part, "inlineData", "inline_data", "fileData", "file_data")
    if blob is not None:
        kind = str(_first(as_dict(blob) or {}, "mimeType", "mime_type"))
        measure.add_media(image(measure.model, measure.provider, None) if kind.startswith("image/") else attachment())
    whole = {name: part[name] for name in _WHOLE if name in part}
    if whole:
        measure.add_json(whole)
    rest = part.keys() - {"text", "inlineData", "inline_data", "fileData", "file_data", *_WHOLE} - _BESIDE
    if rest:
        measure.add_unknown({name: part[name] for name in rest})


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
