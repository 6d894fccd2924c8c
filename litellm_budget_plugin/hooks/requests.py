"""Reading LiteLLM's arguments: what kind of call it is, and what the estimate needs to know of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

import litellm

from litellm_budget_plugin.pricing import Request

try:
    from litellm.llms.anthropic.pass_through.messages import handler as _messages
except ImportError:  # LiteLLM before 1.106
    from litellm.llms.anthropic.experimental_pass_through.messages import handler as _messages


MESSAGES = _messages
"""LiteLLM's module of Anthropic's messages, wherever this version has it."""


class Family(NamedTuple):
    """Ways of calling that are priced alike.

    `function` takes the arguments of all of them (as "module:attribute"); `content` is what a Logging object's messages
    stand for; `sizes` are the arguments that decide how much a call may cost beside its input.
    """

    function: str
    content: str
    sizes: tuple[str, ...] = ()


_PICTURES = ("n", "size", "quality")
FAMILIES = {
    "completion": Family("litellm:completion", "messages", ("max_tokens", "max_completion_tokens", "n", "best_of")),
    "text_completion": Family("litellm:text_completion", "prompt", ("max_tokens", "n", "best_of")),
    "embedding": Family("litellm:embedding", "input"),
    "responses": Family("litellm:responses", "input", ("max_output_tokens",)),
    "messages": Family(f"{MESSAGES.__name__}:anthropic_messages", "messages", ("max_tokens",)),
    "generate_content": Family("litellm.google_genai.main:generate_content", "contents"),
    "image_generation": Family("litellm:image_generation", "prompt", _PICTURES),
    "image_edit": Family("litellm:image_edit", "prompt", _PICTURES),
    "image_variation": Family("litellm:image_variation", "image", _PICTURES),
    "speech": Family("litellm:speech", "input"),
    "transcription": Family("litellm:transcription", "file"),
    "rerank": Family("litellm:rerank", "query"),
    "ocr": Family("litellm.ocr.dispatch:_bind_request", "document"),
    "search": Family("litellm:search", "query"),
    "video_generation": Family("litellm:video_generation", "prompt", ("seconds", "size")),
    "realtime": Family("litellm.realtime_api.main:_arealtime", "messages"),
}
_NAMES = {
    "messages": ("anthropic_messages",),
    "generate_content": ("generate_content", "generate_content_stream"),
    "realtime": ("_realtime",),
}
_LITELLMS_IMAGE_MODEL = "dall-e-2"
_VIA_RESPONSES = re.compile(r"^([^/]+/)?responses/")
CALL_TYPES = {
    name: family
    for family in FAMILIES
    for sync in _NAMES.get(family, (family,))
    for name in (sync, f"_a{sync[1:]}" if sync.startswith("_") else f"a{sync}")
}
"""Every billable way of calling that is priced, by the names that LiteLLM gives them: their families."""


def request_of(call_type: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Request:
    """A call's request, from the arguments as the application gave them. `call_type` is a key of CALL_TYPES."""
    family = CALL_TYPES[call_type]
    # A copy: LiteLLM puts its Logging object into the dictionary afterwards, and its end must not wait for this one's.
    params = dict(kwargs)
    if args:
        params = {**dict(zip(_parameters(family), args)), **params}
    return Request(
        call_type=family,
        model=_model(family, params),
        provider=params.get("custom_llm_provider"),
        params=params,
    )


def _model(family: str, params: Mapping[str, Any]) -> str:
    model = str(params.get("model") or "")
    if family == "search":
        # A search has no model; this is the name that LiteLLM prices it under.
        return f"{params.get('search_provider') or ''}/search"
    if family in ("image_generation", "image_variation") and not model:
        return _LITELLMS_IMAGE_MODEL
    if family not in ("completion", "text_completion"):
        return model
    # "openai/responses/gpt-4o" is how a chat call is sent to the Responses API: the model, and its price, are gpt-4o's.
    return _VIA_RESPONSES.sub(r"\1", str(litellm.model_alias_map.get(model, model)))


def by_position(call_type: str, args: Sequence[Any]) -> frozenset[str]:
    """The names of the arguments that were given by position: what LiteLLM hands on of these cannot be changed."""
    return frozenset(_parameters(CALL_TYPES[call_type])[: len(args)]) if args else frozenset()


@cache
def _parameters(family: str) -> tuple[str, ...]:
    module, _, name = FAMILIES[family].function.partition(":")
    function: Callable[..., Any] = attrgetter(name)(import_module(module))
    return tuple(inspect.signature(function).parameters)


def alike(first: Request, now: Request) -> bool:
    """Whether a request is for the model and the output that another was for; LiteLLM cuts the provider off the name."""
    same_model = first.model == now.model or first.model.endswith(f"/{now.model}")
    sizes = FAMILIES[first.call_type].sizes
    return same_model and all(first.params.get(name) == now.params.get(name) for name in sizes)


def later_request(first: Request, logging_obj: Any) -> Request:
    """The request of a further attempt: the first one's arguments, for the model that LiteLLM now calls."""
    details: Mapping[str, Any] = logging_obj.model_call_details
    optional = details.get("optional_params") or {}
    model = str(details.get("model") or first.model)
    provider = details.get("custom_llm_provider")
    return Request(first.call_type, model, provider, {**first.params, **optional, "model": model})


def logged_request(call_type: str, details: Mapping[str, Any]) -> Request:
    """A request as LiteLLM's Logging object and its callbacks know it: `details` is their keyword arguments."""
    family = CALL_TYPES[call_type]
    litellm_params = details.get("litellm_params") or {}
    params = {**litellm_params, **(details.get("optional_params") or {}), **details}
    params.pop("litellm_logging_obj", None)
    params[FAMILIES[family].content] = details.get("messages") or details.get("input")
    return Request(family, str(details.get("model") or ""), details.get("custom_llm_provider"), params)
