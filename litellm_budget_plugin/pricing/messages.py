"""Anthropic's Messages API, `litellm.anthropic.messages`: what goes in, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.measure import PER_CALL, PER_MESSAGE, PROVIDER_CALL, Measure
from litellm_budget_plugin.pricing.output import Asked, budget, token_limit

_UNSEEN = ("container", "mcp_servers", "context_management", "extra_body")
_FORMATS = ("output_format", "output_config")


def read(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """The system prompt, the messages and the declared tools. Thinking lies inside max_tokens."""
    measure.text += PER_CALL + PROVIDER_CALL.get(measure.provider or "", 0)
    if params.get("system"):
        measure.text += PER_MESSAGE
        measure.add_content(params["system"])
    measure.add_messages(params.get("messages"))
    if params.get("tools"):
        measure.add_tools(params["tools"])
    for name in _FORMATS:
        if params.get(name):
            measure.add_tools([{"name": "", "schema": params[name]}])
    for name in _UNSEEN:
        if params.get(name):
            measure.add_unknown(params[name])
    measure.caches = measure.caches or bool(params.get("cache_control") or params.get("cache_control_injection_points"))
    return Asked(
        limit=token_limit(params.get("max_tokens")),
        thinking=budget(params.get("thinking")),
        tools=params.get("tools"),
    )
