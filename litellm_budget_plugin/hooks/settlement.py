"""Settlement from every source that LiteLLM has: the functions that stand around its own, the original first.

No source is complete, and several report the same ending: what has been settled stays settled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import litellm

from litellm_budget_plugin.hooks import streams
from litellm_budget_plugin.hooks.carrier import call_of
from litellm_budget_plugin.pricing.usage import parse_raw

# What Rust serves is reported nowhere else before the caller has it: the families, and a field that only an answer has.
_RUST = {"ocr": "usage_info", "messages": "stop_reason"}
in_litellm: ContextVar[bool] = ContextVar("litellm_budget_in_litellm", default=False)
"""Set while LiteLLM itself runs its callbacks: the calls that they report have been settled here."""


def post_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """A raw answer: kept, in case that no event follows. Providers also report the text of an error here."""
    call = call_of(logging_obj)
    if call is not None:
        answer = args[0] if args else kwargs.get("original_response")
        if isinstance(answer, dict) or (isinstance(answer, str) and '"usage' in answer):
            call.attempt.answer = answer
        if isinstance(answer, str) and call.attempt.request.call_type in _RUST:
            whole = parse_raw(answer)
            if isinstance(whole, dict) and _RUST[call.attempt.request.call_type] in whole:
                call.answered(whole, None)
    return original(logging_obj, *args, **kwargs)


def update_response_metadata(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The answer, with its cost, just before the caller gets it. For streams the cost is not known yet."""
    call = call_of(args[1] if len(args) > 1 else kwargs.get("logging_obj"))
    note = call.thrift.note if call is not None and call.thrift is not None else {}
    if "moved_to" in note and "model" in kwargs:
        # LiteLLM has noted the model that was called, and would price by it what has no price under its own name.
        kwargs["model"] = note["moved_to"]
    outcome = original(*args, **kwargs)
    result = args[0] if args else kwargs.get("result")
    if call is not None and result is not None:
        if note:
            _show(result, note)
        hidden = getattr(result, "_hidden_params", None)
        if streams.is_stream(result):
            streams.begin(result, call)
        elif (
            isinstance(result, dict) and not call.attempt.sent and call.attempt.request.call_type == "generate_content"
        ):
            # Served by a chat call whose answer was in LiteLLM's cache; only that call's own answer says so.
            call.from_cache()
        elif hidden is not None or isinstance(result, dict):
            call.answered(result, _field(hidden, "response_cost"))
    return outcome


def _show(result: Any, note: dict[str, Any]) -> None:
    """Put what was done to a call where LiteLLM's users look for what is not part of the answer."""
    hidden = getattr(result, "_hidden_params", None)
    if isinstance(hidden, dict):
        hidden["budget"] = note
    elif hidden is not None:
        hidden.budget = note
    else:
        # LiteLLM's stream of text completions has none of its own. A dictionary cannot carry any.
        with suppress(AttributeError):
            result._hidden_params = {"budget": note}


def sync_get_cache(original: Callable[..., Any], handler: Any, *args: Any, **kwargs: Any) -> Any:
    """LiteLLM has looked into its cache. What is there costs nothing, and its money comes back before the caller has it."""
    found = original(handler, *args, **kwargs)
    _looked_up(found, kwargs.get("logging_obj"))
    return found


async def async_get_cache(original: Callable[..., Awaitable[Any]], handler: Any, *args: Any, **kwargs: Any) -> Any:
    """The same, for asynchronous calls."""
    found = await original(handler, *args, **kwargs)
    _looked_up(found, kwargs.get("logging_obj"))
    return found


def _looked_up(found: Any, logging_obj: Any) -> None:
    call = call_of(logging_obj)
    # Of embeddings a part can be there; the rest is asked for, and paid.
    part = getattr(found, "final_embedding_cached_response", None) is not None
    whole = getattr(found, "cached_result", None) is not None and not part
    if call is not None and (whole or getattr(found, "embedding_all_elements_cache_hit", False)):
        call.from_cache()


def _field(hidden: Any, name: str) -> Any:
    return hidden.get(name) if isinstance(hidden, dict) else getattr(hidden, name, None)


def success_handler(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """A success, as LiteLLM reports it to callbacks: the only sign of some calls, and late or missing for others."""
    _succeeded(logging_obj, args, kwargs)
    token = in_litellm.set(True)
    try:
        return original(logging_obj, *args, **kwargs)
    finally:
        in_litellm.reset(token)


async def async_success_handler(
    original: Callable[..., Awaitable[Any]], logging_obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """The same, for asynchronous calls."""
    _succeeded(logging_obj, args, kwargs)
    token = in_litellm.set(True)
    try:
        return await original(logging_obj, *args, **kwargs)
    finally:
        in_litellm.reset(token)


def _succeeded(logging_obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = call_of(logging_obj)
    if call is None or call.attempt.over:
        return
    result = args[0] if args else kwargs.get("result")
    cache_hit = args[3] if len(args) > 3 else kwargs.get("cache_hit")
    if cache_hit:
        call.from_cache()
    elif isinstance(result, list):
        # The messages of a realtime session, which is over.
        call.attempt.chunks = result
        call.ended()
    elif result is not None and not isinstance(result, litellm.ModelResponseStream) and not streams.is_stream(result):
        # LiteLLM also reports each chunk of a stream here; only a whole answer says what the call cost.
        call.answered(_answer_in(result), kwargs.get("response_cost"))


def _answer_in(result: Any) -> Any:
    """The last event of a Responses API stream stands for the answer that it carries."""
    carried = getattr(result, "response", None) if hasattr(result, "type") else None
    return result if carried is None else carried


def failure_handler(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """A failure, as LiteLLM reports it to callbacks."""
    _failed(logging_obj, args[0] if args else kwargs.get("exception"))
    token = in_litellm.set(True)
    try:
        return original(logging_obj, *args, **kwargs)
    finally:
        in_litellm.reset(token)


async def async_failure_handler(
    original: Callable[..., Awaitable[Any]], logging_obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """The same, for asynchronous calls."""
    _failed(logging_obj, args[0] if args else kwargs.get("exception"))
    token = in_litellm.set(True)
    try:
        return await original(logging_obj, *args, **kwargs)
    finally:
        in_litellm.reset(token)


def exception_type(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The failure of one attempt, before LiteLLM tries again: retries that end well report no failure at all."""
    extra = kwargs.get("extra_kwargs") or {}
    error = kwargs.get("original_exception")
    logging_obj = extra.get("litellm_logging_obj")
    _failed(logging_obj, error)
    call = call_of(logging_obj)
    if call is not None and call.refusal is not None:
        # A refusal at the tripwire: LiteLLM would make a provider's error of it.
        refusal, call.refusal = call.refusal, None
        raise refusal
    return original(*args, **kwargs)


def _failed(logging_obj: Any, error: BaseException | None) -> None:
    call = call_of(logging_obj)
    if call is not None and error is not None:
        call.failed(error)
