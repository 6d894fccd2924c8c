"""Readers of a request's content and limits, one for each API that is billed by tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from litellm_budget_plugin.pricing.arguments import GOOGLE_CONFIG, count_arguments
from litellm_budget_plugin.pricing.input_size import (
    PER_CALL,
    PER_MESSAGE,
    PROVIDER_CALL,
    InputCounter,
    as_dict,
    attachment,
    image,
    runs_at_caller,
)
from litellm_budget_plugin.pricing.output_limit import OutputLimit, thinking_budget
from litellm_budget_plugin.pricing.scan import words_of
from litellm_budget_plugin.pricing.tokens import NO_JSON, json_size
from litellm_budget_plugin.pricing.usage import first
from litellm_budget_plugin.pricing.values import Request

_WHOLE_PARTS = words_of("functionCall function_call functionResponse function_response executableCode executable_code")
_BLOBS = ("inlineData", "inline_data", "fileData", "file_data")
_BESIDE = frozenset({"thought", "thoughtSignature", "thought_signature", "videoMetadata", "mediaResolution"})
_WHOLE = frozenset({"function_call", "custom_tool_call", "reasoning"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})


def read(request: Request, counter: InputCounter) -> OutputLimit:
    """Add everything that a request sends, known and unknown, and return the limits that it states."""
    params = request.params
    family = request.call_type if request.call_type in _READERS else "completion"
    if family == "generate_content" and params.get("config") is None:
        # Google's name for it in a request's body. LiteLLM takes it if `config` is missing.
        params = {
            ("config" if name == "generationConfig" else name): value
            for name, value in params.items()
            if name != "config"
        }
    if family != "embedding":
        counter.text += _per_call(counter)
    asked = _READERS[family](counter, params)
    count_arguments(family, counter, asked, params)
    if params.get("echo"):
        asked.echoed = counter.text
    return asked


def _read_chat(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    _add_system(counter, params.get("system"))
    counter.add_messages(params.get("messages"))
    asked = OutputLimit(thinking=thinking_budget(params.get("thinking"), "budget_tokens"))
    asked.state(params.get("max_tokens"), params.get("max_completion_tokens"))
    asked.choose(params.get("n"))
    _read_openai(counter, params, asked)
    if params.get("prediction"):
        # Rejected prediction tokens are billed as output in addition to the answer.
        asked.beside = json_size(params["prediction"]) or NO_JSON
    asked.speaks = bool(params.get("audio") or params.get("modalities"))
    return asked


def _read_text(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    """Each prompt has its own answers. If echo is set, the prompt precedes them."""
    prompts = counter.add_prompt(params.get("prompt"))
    counter.text += _per_call(counter) * (prompts - 1)
    asked = OutputLimit(prompts=prompts)
    asked.state(params.get("max_tokens"))
    asked.choose(params.get("n"), params.get("best_of"))
    for _ in range(prompts if params.get("suffix") else 0):
        counter.add_content(params["suffix"])
    _read_openai(counter, params, asked)
    return asked


def _read_openai(counter: InputCounter, params: Mapping[str, Any], asked: OutputLimit) -> None:
    _add_tools(counter, params, "tools", "functions")
    _add_format(counter, params.get("response_format"))
    asked.tools = params.get("tools")


def _read_embedding(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    return OutputLimit(prompts=counter.add_prompt(params.get("input")), choices=0, limit=1)


def _read_responses(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    """Reasoning is included in max_output_tokens."""
    _add_system(counter, params.get("instructions"))
    _add_input(counter, params.get("input"))
    _add_tools(counter, params, "tools")
    text = params.get("text")
    _add_format(counter, params.get("text_format") or (text.get("format") if isinstance(text, Mapping) else None))
    asked = OutputLimit(tools=params.get("tools"))
    asked.state(params.get("max_output_tokens"))
    return asked


def _read_messages(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    """Thinking is included in max_tokens."""
    _add_system(counter, params.get("system"))
    counter.add_messages(params.get("messages"))
    _add_tools(counter, params, "tools")
    for name in ("output_format", "output_config"):
        _add_format(counter, params.get(name))
    asked = OutputLimit(thinking=thinking_budget(params.get("thinking"), "budget_tokens"), tools=params.get("tools"))
    asked.state(params.get("max_tokens"))
    return asked


def _read_google(counter: InputCounter, params: Mapping[str, Any]) -> OutputLimit:
    """Thoughts are included in maxOutputTokens."""
    config = as_dict(params.get("config")) or {}
    for source in (params, config):
        system = first(source, "systemInstruction", "system_instruction")
        if system is not None:
            _add_contents(counter, system)
    _add_contents(counter, params.get("contents"))
    given = [*_listed(params.get("tools")), *_listed(config.get("tools"))]
    # Google's SDK declares, calls and answers a Python function among them, and adds content that is not visible here.
    tools = [as_dict(tool) or tool for tool in given]
    _add_declarations(counter, tools)
    _add_format(
        counter, first(config, "responseSchema", "response_schema", "responseJsonSchema", "response_json_schema")
    )
    thinking = as_dict(first(config, "thinkingConfig", "thinking_config"))
    asked = OutputLimit(thinking=thinking_budget(thinking, "thinkingBudget", "thinking_budget"), tools=tools)
    asked.state(config.get("maxOutputTokens"), config.get("max_output_tokens"))
    asked.choose(config.get("candidateCount"), config.get("candidate_count"))
    asked.speaks = "AUDIO" in str(first(config, "responseModalities", "response_modalities")).upper()
    count_arguments(GOOGLE_CONFIG, counter, asked, config)
    return asked


_READERS: dict[str, Callable[[InputCounter, Mapping[str, Any]], OutputLimit]] = {
    "completion": _read_chat,
    "text_completion": _read_text,
    "embedding": _read_embedding,
    "responses": _read_responses,
    "messages": _read_messages,
    "generate_content": _read_google,
}


def _per_call(counter: InputCounter) -> int:
    return PER_CALL + PROVIDER_CALL.get(counter.provider or "", 0)


def _add_system(counter: InputCounter, system: object) -> None:
    if system:
        counter.text += PER_MESSAGE
        counter.add_content(system)


def _add_tools(counter: InputCounter, params: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if params.get(name):
            counter.add_tools(params[name])


def _add_format(counter: InputCounter, response_format: object) -> None:
    if response_format:
        counter.add_tools([{"name": "", "schema": _schema(response_format)}])


def _schema(response_format: object) -> object:
    """Return a response format as it is sent. For a pydantic class, that is its schema."""
    make = getattr(response_format, "model_json_schema", None)
    if not callable(make):
        return as_dict(response_format) or response_format
    try:
        return make()
    except Exception:  # noqa: BLE001  # the caller's class: an estimate never raises
        return repr(response_format)


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _add_input(counter: InputCounter, given: object) -> None:
    if isinstance(given, str):
        counter.add_message({"content": given})
    elif isinstance(given, (list, tuple)):
        for item in given:
            _add_response_item(counter, item)
    elif given is not None:
        counter.add_unknown(given)


def _add_response_item(counter: InputCounter, given: object) -> None:
    item = given if isinstance(given, dict) else as_dict(given)
    if item is None:
        counter.add_unknown(given)
        return
    kind = item.get("type")
    if "role" in item and kind in (None, "message"):
        counter.add_message({name: value for name, value in item.items() if name not in ("type", "id", "status")})
        return
    counter.text += PER_MESSAGE
    counter.floor += PER_MESSAGE
    if kind in _OUTPUTS:
        counter.text += len(str(item.get("call_id")))
        counter.add_content(item.get("output"))
    elif kind in _WHOLE:
        counter.add_json(item)
    else:
        # The action of a tool at the provider, or a reference to something that the provider keeps.
        counter.add_unknown({name: value for name, value in item.items() if name != "result"})


def _add_declarations(counter: InputCounter, tools: list[Any]) -> None:
    for tool in tools:
        if isinstance(tool, Mapping) and runs_at_caller(tool):
            counter.add_tools(_listed(first(tool, "functionDeclarations", "function_declarations")))
        elif isinstance(tool, Mapping):
            counter.add_tools([tool])
        else:
            counter.add_unknown(tool)


def _add_contents(counter: InputCounter, contents: object) -> None:
    for content in _listed(contents):
        counter.text += PER_MESSAGE
        counter.floor += PER_MESSAGE
        shape = None if isinstance(content, str) else as_dict(content)
        if shape is None:
            counter.add_content(content) if isinstance(content, str) else counter.add_unknown(content)
        elif "parts" in shape:
            for part in _listed(shape["parts"]):
                _add_google_part(counter, part)
        else:
            _add_google_part(counter, shape)


def _add_google_part(counter: InputCounter, given: object) -> None:
    part = {"text": given} if isinstance(given, str) else as_dict(given)
    if part is None:
        counter.add_unknown(given)
        return
    if isinstance(part.get("text"), str):
        counter.add_text(part["text"])
    blob = first(part, *_BLOBS)
    if blob is not None:
        kind = str(first(as_dict(blob) or {}, "mimeType", "mime_type"))
        counter.add_media(image(counter.model, counter.provider, None) if kind.startswith("image/") else attachment())
    whole = {name: part[name] for name in _WHOLE_PARTS if name in part}
    if whole:
        counter.add_json(whole)
    rest = part.keys() - {"text", *_BLOBS, *_WHOLE_PARTS} - _BESIDE
    if rest:
        counter.add_unknown({name: part[name] for name in rest})
