"""The kind of call that a function of LiteLLM makes, and the request that the estimate needs.

Every function under LiteLLM's `@client` is gated, except those of FREE. For a kind without an estimate of its own,
UNBOUNDED_HOLD is held.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

import litellm

from litellm_budget_plugin.pricing import Request

_logger = logging.getLogger("litellm_budget_plugin")

# For each family: the argument that holds the model's input.
FAMILIES = {
    "completion": "messages",
    "text_completion": "prompt",
    "embedding": "input",
    "responses": "input",
    "messages": "messages",
    "generate_content": "contents",
    "image_generation": "prompt",
    "image_edit": "prompt",
    "image_variation": "image",
    "speech": "input",
    "transcription": "file",
    "rerank": "query",
    "ocr": "document",
    "search": "query",
    "video_generation": "prompt",
    "realtime": "messages",
}
_FUNCTIONS = {
    "messages": ("anthropic_messages",),
    "generate_content": ("generate_content", "generate_content_stream"),
    "realtime": ("_realtime",),
}


def _both(name: str) -> tuple[str, str]:
    """Return a function's name and the name of its asynchronous version."""
    return name, f"_a{name[1:]}" if name.startswith("_") else f"a{name}"


CALL_TYPES = {name: family for family in FAMILIES for sync in _FUNCTIONS.get(family, (family,)) for name in _both(sync)}
"""The family of each function that has an estimate of its own. The keys are LiteLLM's names."""

_STORED = "stores, lists or deletes files and indexes; no model runs"
_DEFINITION = "reads or changes a definition; running it is a call of its own"
_JOB = "reads or ends a job; what the job costs is charged when LiteLLM reports it"
_ANSWER = "reads, ends or deletes an answer that was paid for when it was made"
_FREE: tuple[tuple[str, str, str], ...] = (
    ("main", "moderation", "moderation is free at every provider that LiteLLM calls for it"),
    ("batches.main", "retrieve_batch list_batches", _JOB),
    ("fine_tuning.main", "retrieve_fine_tuning_job cancel_fine_tuning_job", _JOB),
    ("files.main", "create_file file_content file_delete file_list file_retrieve", _STORED),
    ("vector_stores.main", "create delete list retrieve search update", _STORED),
    ("vector_store_files.main", "create delete list retrieve retrieve_content update", _STORED),
    ("rag.main", "ingest", "stores a document; OCR and embeddings that it needs are calls of their own"),
    ("responses.main", "cancel_responses delete_responses get_responses list_input_items", _ANSWER),
    ("interactions.main", "cancel delete get", _ANSWER),
    ("interactions.agents.main", "create delete get list list_versions", _DEFINITION),
    ("evals.main", "cancel_eval create_eval delete_eval get_eval list_evals update_eval", _DEFINITION),
    ("evals.main", "cancel_run delete_run get_run list_runs", _ANSWER),
    ("skills.main", "create_skill delete_skill get_skill list_skills", _DEFINITION),
    ("containers.main", "delete_container list_containers retrieve_container", _STORED),
    ("containers.main", "list_container_files upload_container_file", _STORED),
    ("containers.endpoint_factory", "endpoint_func async_endpoint_func", _STORED),
    ("sandbox.main", "delete_sandbox", _STORED),
    ("videos.main", "video_content video_get_character video_list video_status", _ANSWER),
    ("proxy.mcp_server.operations", "call_mcp_tool", "runs a tool; LiteLLM reports the price that its owner has set"),
    ("proxy._experimental.mcp_server.operations", "call_mcp_tool", "the same function in earlier versions of LiteLLM"),
)
FREE: Mapping[str, str] = {
    f"{module}:{name}": reason for module, names, reason in _FREE for sync in names.split() for name in _both(sync)
}
"""The functions under `@client` that are not gated, as "module:function" below `litellm`, and why each costs nothing.
If LiteLLM reports a cost for one nevertheless, that cost is charged.
"""
PAID_BEFORE = frozenset(
    name for _, names, why in _FREE if why is _ANSWER for sync in names.split() for name in _both(sync)
)
"""Functions of FREE that show an answer which was charged when it was made. What LiteLLM reports for them is not
charged again.
"""
_AMBIGUOUS = frozenset(name for sync in ["create", "delete", "get", "list", "search", "cancel"] for name in _both(sync))
# The LiteLLM proxy uses its own names when it sets up requests.
_FREE_ROUTES = (
    frozenset({key.partition(":")[2] for key in FREE} - _AMBIGUOUS)
    | frozenset(
        name
        for sync in (
            *(f"vector_store_{verb}" for verb in ("create", "delete", "list", "retrieve", "search", "update")),
            *(f"vector_store_file_{verb}" for verb in ("create", "delete", "list", "retrieve", "content", "update")),
            *(f"{verb}_agent" for verb in ("create", "delete", "get")),
            *(f"{verb}_interaction" for verb in ("cancel", "delete", "get")),
            *("list_agents", "list_agent_versions", "cancel_batch", "list_fine_tuning_jobs", "get_assistants"),
            *("delete_container_file", "retrieve_container_file", "retrieve_container_file_content"),
        )
        for name in _both(sync)
    )
    | {"apply_guardrail"}
)

STARTS_JOB = frozenset(name for sync in ("create_batch", "create_fine_tuning_job") for name in _both(sync))
"""Functions whose answer costs nothing yet. They need room, and are charged when the cost of their job is reported."""

_LITELLMS_IMAGE_MODEL = "dall-e-2"
_SAID_ONCE = frozenset({"model", "stream", "stream_options"})
_NO = frozenset({"", "0", "0.0", "false", "f", "no", "n", "off", "none"})
_VIA_RESPONSES = re.compile(r"^([^/]+/)?responses/")
_FRAMES = 8
_HOOK = "async_pre_call_deployment_hook"


class Kind(NamedTuple):
    """The kind of a called function. `family` is a key of FAMILIES, or the function's own name if it has no estimate."""

    family: str
    function: Callable[..., Any] | None
    """The function under `@client`; None if LiteLLM names a route without calling a function."""
    free: str = ""
    """The function's name if it is in FREE."""
    asynchronous: bool = False
    """Whether LiteLLM's wrapper that calls the function is a coroutine function."""
    awaits: bool = False
    """Whether the wrapper awaits `async_pre_call_deployment_hook` before it calls the function."""


def kind_of(name: str) -> Kind | None:
    """Return the kind of the function being called, for a wrapper of `function_setup`; None if nothing is called.
    `name` is LiteLLM's name for it.

    The function decides, not the name: two functions of LiteLLM share the name `search`.
    """
    found = _function_being_set_up()
    if found is not None:
        function, wrapper = found
        key = f"{function.__module__.removeprefix('litellm.')}:{function.__name__}"
        asynchronous = bool(wrapper.co_flags & inspect.CO_COROUTINE)
        awaits = asynchronous and _HOOK in wrapper.co_names
        family, free = (key, key) if key in FREE else (CALL_TYPES.get(name, name), "")
        return Kind(family, function, free, asynchronous, awaits)
    if name in CALL_TYPES:
        return Kind(CALL_TYPES[name], None)
    if name in _FREE_ROUTES:
        return Kind(name, None, name)
    # The proxy also sets up calls that it turns down. It names them by a word in capitals or a path.
    return Kind(name, None) if name.isidentifier() and name.islower() else None


def _function_being_set_up() -> tuple[Callable[..., Any], CodeType] | None:
    """Return the function whose `@client` wrapper is calling `function_setup`, and the wrapper's code; None if there is
    no such wrapper.
    """
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        names = frame.f_code.co_freevars
        if "original_function" in names and "rules_obj" in names:
            found = frame.f_locals.get("original_function")
            return (found, frame.f_code) if callable(found) else None
    return None


def request_of(
    family: str, kwargs: Mapping[str, Any], args: Sequence[Any] = (), function: Callable[..., Any] | None = None
) -> Request:
    """Return a call's request, from the arguments that the application gave."""
    # A copy: LiteLLM later puts its Logging object into the dictionary. The end of that object must not wait for the
    # request's end.
    params = dict(kwargs)
    if args:
        params = {**dict(zip(_parameters(function), args)), **params}
    return Request(family, _model(family, params), params.get("custom_llm_provider"), params)


def _model(family: str, params: Mapping[str, Any]) -> str:
    model = str(params.get("model") or "")
    if family == "search":
        # A search has no model. LiteLLM prices it under this name.
        return f"{params.get('search_provider') or ''}/search"
    if family in ("image_generation", "image_variation") and not model:
        return _LITELLMS_IMAGE_MODEL
    if family not in ("completion", "text_completion"):
        return model
    # A chat call for "openai/responses/gpt-4o" goes to the Responses API. The model and its price are those of gpt-4o.
    return _VIA_RESPONSES.sub(r"\1", str(litellm.model_alias_map.get(model, model)))


def say_once(params: dict[str, Any]) -> None:
    """Remove contradictions about the called model and about streaming, so that LiteLLM and the provider read the same.
    Values in `extra_body` would reach only the provider, which would answer and bill something other than what LiteLLM
    reads and prices.
    """
    stream = params.get("stream")
    if stream is not None and not isinstance(stream, bool):
        # Providers accept 1 and "true". LiteLLM reads these as a stream in some places and as a whole answer in others.
        params["stream"] = str(stream).strip().lower() not in _NO
    given = params.get("extra_body")
    if isinstance(given, Mapping) and not _SAID_ONCE.isdisjoint(given):
        params["extra_body"] = {name: value for name, value in given.items() if name not in _SAID_ONCE}
        _logger.warning(
            "extra_body names %s, which are LiteLLM's own arguments: their values in extra_body are not sent",
            ", ".join(sorted(_SAID_ONCE.intersection(given))),
        )


def by_position(args: Sequence[Any], function: Callable[..., Any] | None) -> frozenset[str]:
    """Return the names of the arguments that were given by position. Their values cannot be changed for LiteLLM."""
    return frozenset(_parameters(function)[: len(args)]) if args else frozenset()


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any] | None) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters) if function is not None else ()


def later_request(first: Request, details: Mapping[str, Any]) -> Request:
    """Return the request of a further attempt: the arguments of the one before, for the model that LiteLLM calls now.
    `details` are the `model_call_details` of its Logging object. All else that LiteLLM sends is read from the body.
    """
    model = str(details.get("model") or first.model)
    return Request(first.call_type, model, details.get("custom_llm_provider"), {**first.params, "model": model})


def logged_request(family: str, details: Mapping[str, Any]) -> Request:
    """Return a request from what LiteLLM's Logging object and callbacks know. `details` is their keyword arguments."""
    litellm_params = details.get("litellm_params") or {}
    params = {**litellm_params, **(details.get("optional_params") or {}), **details}
    content = details.get("messages") or details.get("input")
    for name in ("litellm_logging_obj", "messages", "input"):
        params.pop(name, None)
    params[FAMILIES.get(family, "messages")] = content
    return Request(family, str(details.get("model") or ""), details.get("custom_llm_provider"), params)


_BY_MODE = {
    "embedding": "embedding",
    "image_generation": "image_generation",
    "image_edit": "image_edit",
    "audio_speech": "speech",
    "audio_transcription": "transcription",
    "rerank": "rerank",
    "ocr": "ocr",
    "video_generation": "video_generation",
}


def sent_request(details: Mapping[str, Any]) -> Request:
    """Return the request of a call that bypassed the gate, from what LiteLLM knows of the called model. The label of
    its Logging object is ignored, because a caller can pass any.
    """
    model, provider = str(details.get("model") or ""), details.get("custom_llm_provider")
    entry = litellm.model_cost.get(model) or litellm.model_cost.get(f"{provider}/{model}")
    mode = entry.get("mode") if isinstance(entry, Mapping) else None
    return logged_request(_BY_MODE.get(str(mode), "completion"), details)
