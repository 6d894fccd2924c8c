"""Google's generateContent, `litellm.google_genai`: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.measure import PER_CALL, PER_MESSAGE, Measure, as_dict, runs_at_caller
from litellm_budget_plugin.pricing.media import attachment, image
from litellm_budget_plugin.pricing.output import Asked, choices, thinking_tokens, token_limit

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
