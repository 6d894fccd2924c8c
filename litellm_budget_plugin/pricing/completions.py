"""Requests in OpenAI's oldest form: chat completions, text completions and embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.measure import PER_CALL, PROVIDER_CALL, Measure
from litellm_budget_plugin.pricing.output import Asked, budget, choices, token_limit

# These add text, or change limits, where this code cannot see it.
_UNSEEN = ("extra_body", "prompt_id", "vector_store_ids", "documents", "web_search_options", "plugins", "transforms")
_CACHE_SIGNS = ("cache_control", "cache_control_injection_points")
_LIMITS = ("max_completion_tokens", "max_tokens")


def read_chat(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """A chat completion."""
    measure.add_messages(params.get("messages"))
    return _read(measure, params, Asked(choices=choices(params.get("n"))))


def read_text(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """A text completion: each of its prompts has answers of its own, with the prompt before them if echo is set."""
    prompts = measure.add_prompt(params.get("prompt"))
    asked = _read(measure, params, Asked(choices=choices(params.get("n"), params.get("best_of")), prompts=prompts))
    if params.get("echo"):
        asked.echoed = measure.text
    return asked


def read_embedding(measure: Measure, params: Mapping[str, Any]) -> Asked:
    """Embeddings, which have no output."""
    return Asked(prompts=measure.add_prompt(params.get("input")), choices=0, limit=1)


def _read(measure: Measure, params: Mapping[str, Any], asked: Asked) -> Asked:
    measure.text += (PER_CALL + PROVIDER_CALL.get(measure.provider or "", 0)) * asked.prompts
    for name in ("tools", "functions"):
        if params.get(name):
            measure.add_tools(params[name])
    if params.get("response_format"):
        measure.add_tools([{"name": "", "schema": schema(params["response_format"])}])
    for name in _UNSEEN:
        if params.get(name):
            measure.add_unknown(params[name])
    for name in _CACHE_SIGNS:
        if params.get(name):
            measure.caches = True
    asked.limit = _limit(params)
    if params.get("thinking"):
        asked.thinking = budget(params["thinking"])
    if params.get("prediction"):
        # Rejected prediction tokens are billed as output beside the answer.
        asked.beside = _predicted(params["prediction"])
    asked.speaks = bool(params.get("audio") or params.get("modalities"))
    asked.tools = params.get("tools")
    return asked


def _limit(params: Mapping[str, Any]) -> int:
    dropped = params.get("additional_drop_params")
    found = 0
    for name in _LIMITS:
        value = params.get(name)
        if value is not None and not (isinstance(dropped, (list, tuple)) and name in dropped):
            # The larger counts: which of the two a provider honours differs.
            found = max(found, token_limit(value))
    return found


def _predicted(prediction: object) -> int:
    try:
        return len(json.dumps(prediction, default=repr))
    except (ValueError, RecursionError, TypeError):
        return len(repr(type(prediction)))


def schema(response_format: object) -> object:
    """A response format as it is sent: of a pydantic class, its schema."""
    make = getattr(response_format, "model_json_schema", None)
    if not callable(make):
        return response_format
    try:
        return make()
    except Exception:  # noqa: BLE001  # the caller's class: an estimate never raises
        return repr(response_format)
