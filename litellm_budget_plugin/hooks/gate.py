"""The functions that stand around LiteLLM's own: each takes the original first, and its arguments after it.

They act while a BudgetCallback is in `litellm.callbacks`; which one is asked anew for every call.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import litellm

from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.call import ATTRIBUTE, Call
from litellm_budget_plugin.hooks.payer import paying_user
from litellm_budget_plugin.hooks.registered import registered_ledger
from litellm_budget_plugin.hooks.requests import CALL_TYPES, by_position, later_request, logged_request, request_of
from litellm_budget_plugin.hooks.thrift import thrift_for
from litellm_budget_plugin.pricing import Request

_logger = logging.getLogger("litellm_budget_plugin")
in_litellm: ContextVar[bool] = ContextVar("litellm_budget_in_litellm", default=False)
"""Set while LiteLLM itself runs its callbacks: the calls that they report have been settled here."""


def function_setup(
    original: Callable[..., Any], original_function: str, rules_obj: Any, start_time: Any, *args: Any, **kwargs: Any
) -> Any:
    """The gate: LiteLLM looks this function up for every call, also for names imported before the gate was armed.

    What is raised here reaches the caller as it is; no request leaves, and no failure is counted against a deployment.
    """
    logging_obj, params = original(original_function, rules_obj, start_time, *args, **kwargs)
    # Inside somebody else's wrapper an earlier gate may still stand; it has held for this call then.
    if original_function in CALL_TYPES and call_of(logging_obj) is None:
        ledger = registered_ledger()
        if ledger is not None:
            try:
                request = request_of(original_function, args, params)
                thrift = thrift_for(ledger.settings, request, by_position(original_function, args))
                call = Call(ledger, paying_user(ledger.settings, request.params), request, thrift)
                _admit(logging_obj, call)
                if thrift is not None:
                    thrift.apply(params, call.user)
            except BaseException:
                _unstamp(logging_obj)
                raise
    return logging_obj, params


def _admit(logging_obj: Any, call: Call) -> None:
    """Carry the call on the Logging object, and only then hold for it: whatever happens in between, its end is noticed."""
    setattr(logging_obj, ATTRIBUTE, call)
    # Dropped and cancelled calls fire no event at all: the end of LiteLLM's Logging object is the one sign of them.
    weakref.finalize(logging_obj, call.dropped).atexit = False
    call.admit()


def _unstamp(logging_obj: Any) -> None:
    """Undo what LiteLLM's set-up left on the context: the call that it belongs to will not take place."""
    restore = getattr(logging_obj, "_restore_correlation_context", None)
    if restore is not None:
        restore()


def call_of(logging_obj: Any) -> Call | None:
    """The call that a Logging object carries."""
    call = getattr(logging_obj, ATTRIBUTE, None)
    return call if isinstance(call, Call) else None


def pre_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The tripwire right before a provider is contacted: it opens attempts, and holds for calls that came around the gate."""
    try:
        call = call_of(logging_obj) or _ungated(logging_obj)
        if call is not None:
            first = call.attempt.request
            call.sending(lambda: later_request(first, logging_obj))
    except BudgetError as error:
        refused = call_of(logging_obj)
        if refused is not None:
            refused.refusal = error
        raise
    return original(logging_obj, *args, **kwargs)


def _ungated(logging_obj: Any) -> Call | None:
    call_type = getattr(logging_obj, "call_type", None)
    # The proxy's error paths log without calling anybody.
    if call_type not in CALL_TYPES or "litellm_logging_no_upstream_llm_call" in logging_obj.model_call_details:
        return None
    ledger = registered_ledger()
    if ledger is None:
        return None
    request: Request = logged_request(call_type, logging_obj.model_call_details)
    call = Call(ledger, paying_user(ledger.settings, request.params), request)
    _admit(logging_obj, call)
    return call


def post_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """A raw answer: kept, in case that no event follows. Providers also report the text of an error here."""
    call = call_of(logging_obj)
    if call is not None:
        answer = args[0] if args else kwargs.get("original_response")
        if isinstance(answer, dict) or (isinstance(answer, str) and '"usage"' in answer):
            call.attempt.answer = answer
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
    if note:
        _show(result, note)
    if call is not None and not _is_stream(result):
        hidden = getattr(result, "_hidden_params", None)
        if hidden is not None:
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


def _field(hidden: Any, name: str) -> Any:
    return hidden.get(name) if isinstance(hidden, dict) else getattr(hidden, name, None)


def stream_init(original: Callable[..., Any], stream: Any, *args: Any, **kwargs: Any) -> None:
    """A stream begins: its list of chunks outlives it."""
    original(stream, *args, **kwargs)
    call = call_of(getattr(stream, "logging_obj", None))
    if call is None:
        return
    if getattr(stream, "custom_llm_provider", None) == "cached_response":
        call.from_cache()
    elif call.attempt.chunks is None:
        # The Router wraps a stream in another of the same class: the first one made is the one that gets the chunks.
        call.attempt.chunks = stream.chunks


def stream_chunk_builder(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """LiteLLM puts a stream's answer together when the last chunk has been read, before the caller learns of the end."""
    response = original(*args, **kwargs)
    chunks = args[0] if args else kwargs.get("chunks")
    call = call_of(kwargs.get("logging_obj"))
    if call is not None and response is not None and chunks is call.attempt.chunks:
        call.answered(response, None)
    return response


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
    elif result is not None and not isinstance(result, litellm.ModelResponseStream) and not _is_stream(result):
        # LiteLLM also reports each chunk of a stream here; only a whole answer says what the call cost.
        call.answered(result, None)


def _is_stream(result: Any) -> bool:
    return hasattr(result, "__next__") or hasattr(result, "__anext__")


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
