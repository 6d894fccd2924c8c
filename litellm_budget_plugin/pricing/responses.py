"""OpenAI's Responses API, `litellm.responses`: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.completions import schema
from litellm_budget_plugin.pricing.measure import PER_CALL, PER_MESSAGE, PROVIDER_CALL, Measure, as_dict
from litellm_budget_plugin.pricing.output import Asked, token_limit

# What these add is kept by the provider.
_UNSEEN = ("previous_response_id", "conversation", "prompt", "extra_body", "context_management")
_WHOLE = frozenset({"function_call", "custom_tool_call", "reasoning"})
_LAST = ("response.completed", "response.incomplete", "response.failed", "response.done")
# Sound and pictures come as base64.
_NOT_TEXT = ("audio.delta", "image")
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})


def read(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """The instructions, the input and the declared tools. Reasoning lies inside max_output_tokens."""
    measure.text += PER_CALL + PROVIDER_CALL.get(measure.provider or "", 0)
    instructions = params.get("instructions")
    if instructions:
        measure.text += PER_MESSAGE
        measure.add_content(instructions)
    _add_input(measure, params.get("input"))
    if params.get("tools"):
        measure.add_tools(params["tools"])
    text = params.get("text")
    form = params.get("text_format") or (text.get("format") if isinstance(text, Mapping) else None)
    if form:
        measure.add_tools([{"name": "", "schema": schema(form)}])
    for name in _UNSEEN:
        if params.get(name):
            measure.add_unknown(params[name])
    return Asked(limit=token_limit(params.get("max_output_tokens")), tools=params.get("tools"))


def _add_input(measure: Measure, given: object) -> None:
    if isinstance(given, str):
        measure.add_message({"content": given})
    elif isinstance(given, (list, tuple)):
        for item in given:
            _add_item(measure, item)
    elif given is not None:
        measure.add_unknown(given)


def _add_item(measure: Measure, given: object) -> None:
    item = given if isinstance(given, dict) else as_dict(given)
    if item is None:
        measure.add_unknown(given)
        return
    kind = item.get("type")
    if "role" in item and kind in (None, "message"):
        measure.add_message({name: value for name, value in item.items() if name not in ("type", "id", "status")})
        return
    measure.text += PER_MESSAGE
    measure.floor += PER_MESSAGE
    if kind in _OUTPUTS:
        measure.text += len(str(item.get("call_id")))
        measure.add_content(item.get("output"))
    elif kind in _WHOLE:
        measure.add_json(item)
    else:
        # What a tool at the provider did, or a reference to what it keeps.
        measure.add_unknown({name: value for name, value in item.items() if name != "result"})
