"""Reading LiteLLM's arguments: what kind of call it is, and what the estimate needs to know of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import litellm

from litellm_budget_plugin.pricing import Request

# Every billable way of calling that this version prices, by the names that LiteLLM gives them.
CALL_TYPES = {
    "completion": "completion",
    "acompletion": "completion",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
    "embedding": "embedding",
    "aembedding": "embedding",
}


def request_of(call_type: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Request:
    """A call's request, from the arguments as the application gave them. `call_type` is a key of CALL_TYPES."""
    # A copy: LiteLLM puts its Logging object into the dictionary afterwards, and its end must not wait for this one's.
    params = dict(kwargs)
    if args:
        params = {**dict(zip(_parameters(CALL_TYPES[call_type]), args)), **params}
    model = str(params.get("model") or "")
    if CALL_TYPES[call_type] != "embedding":
        model = str(litellm.model_alias_map.get(model, model))
    return Request(
        call_type=CALL_TYPES[call_type],
        model=model,
        provider=params.get("custom_llm_provider"),
        params=params,
    )


def by_position(call_type: str, args: Sequence[Any]) -> frozenset[str]:
    """The names of the arguments that were given by position: what LiteLLM hands on of these cannot be changed."""
    return frozenset(_parameters(CALL_TYPES[call_type])[: len(args)]) if args else frozenset()


@cache
def _parameters(function: str) -> tuple[str, ...]:
    return tuple(inspect.signature(getattr(litellm, function)).parameters)


_LIMITS = ("max_tokens", "max_completion_tokens", "n", "best_of")


def alike(first: Request, now: Request) -> bool:
    """Whether a request is for the model and the output that another was for; LiteLLM cuts the provider off the name."""
    same_model = first.model == now.model or first.model.endswith(f"/{now.model}")
    return same_model and all(first.params.get(name) == now.params.get(name) for name in _LIMITS)


def later_request(first: Request, logging_obj: Any) -> Request:
    """The request of a further attempt: the first one's arguments, for the model that LiteLLM now calls."""
    details: Mapping[str, Any] = logging_obj.model_call_details
    optional = details.get("optional_params") or {}
    model = str(details.get("model") or first.model)
    provider = details.get("custom_llm_provider")
    return Request(first.call_type, model, provider, {**first.params, **optional, "model": model})


def logged_request(call_type: str, details: Mapping[str, Any]) -> Request:
    """A request as LiteLLM's Logging object and its callbacks know it: `details` is their keyword arguments."""
    litellm_params = details.get("litellm_params") or {}
    params = {**litellm_params, **(details.get("optional_params") or {}), **details}
    params.pop("litellm_logging_obj", None)
    content = details.get("messages") or details.get("input")
    name = {"completion": "messages", "text_completion": "prompt", "embedding": "input"}[CALL_TYPES[call_type]]
    params[name] = content
    return Request(CALL_TYPES[call_type], str(details.get("model") or ""), details.get("custom_llm_provider"), params)
