"""Settlement from every source that LiteLLM has: functions that wrap its own. The wrapped function is their first
argument.

No source is complete, and several report the same end. A call that has been settled stays settled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import litellm

from litellm_budget_plugin import pricing
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks import streams
from litellm_budget_plugin.hooks.call import settlement_of
from litellm_budget_plugin.hooks.call_binding import binding_of, call_of, free_function_of
from litellm_budget_plugin.hooks.call_types import PAID_BEFORE, request_of
from litellm_budget_plugin.hooks.jobs import payers_of
from litellm_budget_plugin.hooks.principal import principal_of
from litellm_budget_plugin.hooks.registration import current_ledger
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.marks import safe_name
from litellm_budget_plugin.pricing.usage import field, parse_raw

_logger = logging.getLogger("litellm_budget_plugin")
# Calls that LiteLLM serves in Rust are reported nowhere else before the caller has the answer. For each family: a field
# that only an answer has.
_RUST = {"ocr": "usage_info", "messages": "stop_reason"}
in_litellm: ContextVar[bool] = ContextVar("litellm_budget_in_litellm", default=False)
"""True while LiteLLM runs its callbacks: the calls that they report have already been settled here."""


@contextmanager
def _litellm_reports() -> Iterator[None]:
    token = in_litellm.set(True)
    try:
        yield
    finally:
        in_litellm.reset(token)


def post_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Keep a raw answer in case no event follows. Providers also report the text of an error here."""
    call = call_of(logging_obj)
    if call is not None:
        answer = args[0] if args else kwargs.get("original_response")
        if isinstance(answer, dict) or (isinstance(answer, str) and '"usage' in answer):
            call.answer = answer
        if isinstance(answer, str) and call.request.call_type in _RUST:
            whole = parse_raw(answer)
            if isinstance(whole, dict) and _RUST[call.request.call_type] in whole:
                call.answered(whole, None)
    outcome = original(logging_obj, *args, **kwargs)
    details = logging_obj.model_call_details
    if streams.is_stream(details.get("original_response")):
        # The stream holds the Logging object. If it were kept here, only the next full garbage collection would free
        # it, and with it the money of a dropped call.
        details["original_response"] = f"<{type(details['original_response']).__name__}>"
    return outcome


def update_response_metadata(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Settle the answer, with its cost, just before the caller gets it. The cost of streams is not known yet."""
    logging_obj = args[1] if len(args) > 1 else kwargs.get("logging_obj")
    call = call_of(logging_obj)
    note = call.plan.note if call is not None and call.plan is not None else {}
    if "moved_to" in note and "model" in kwargs:
        # LiteLLM has noted the called model. It would use that model's price if the answer's own name has no price.
        kwargs["model"] = note["moved_to"]
    outcome = original(*args, **kwargs)
    result = args[0] if args else kwargs.get("result")
    if result is None:
        return outcome
    hidden = getattr(result, "_hidden_params", None)
    if call is None:
        _charge_reported(logging_obj, result, field(hidden, "response_cost"))
        return outcome
    if note:
        _show(result, note)
    if streams.is_stream(result):
        streams.begin(result, call)
    elif isinstance(result, dict) and not call.sent and call.request.call_type == "generate_content":
        # Served by a chat call whose answer was in LiteLLM's cache. Only that call's own answer shows this.
        call.release()
    elif hidden is not None or isinstance(result, dict):
        call.answered(result, field(hidden, "response_cost"), logging_obj)
    return outcome


def found_in_cache(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do what `update_response_metadata` does, for an answer that LiteLLM has found in its cache: it costs nothing."""
    outcome = original(*args, **kwargs)
    call = call_of(args[1] if len(args) > 1 else kwargs.get("logging_obj"))
    if call is not None:
        call.release()
    return outcome


def _show(result: Any, note: dict[str, Any]) -> None:
    """Put the note about a changed call where LiteLLM's users look for data that is not part of the answer."""
    hidden = getattr(result, "_hidden_params", None)
    if isinstance(hidden, dict):
        hidden["budget"] = note
    elif hidden is not None:
        hidden.budget = note
    else:
        # LiteLLM's stream of text completions has no hidden parameters. A dictionary cannot carry any.
        with suppress(AttributeError):
            result._hidden_params = {"budget": note}


def success_handler(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Settle a success that LiteLLM reports to callbacks. For some calls it is the only sign; for others it is late or
    missing.
    """
    _succeeded(logging_obj, args, kwargs)
    try:
        with _litellm_reports():
            return original(logging_obj, *args, **kwargs)
    finally:
        _reported(logging_obj, args, kwargs)


async def async_success_handler(
    original: Callable[..., Awaitable[Any]], logging_obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """Do what `success_handler` does, for asynchronous calls."""
    _succeeded(logging_obj, args, kwargs)
    try:
        with _litellm_reports():
            return await original(logging_obj, *args, **kwargs)
    finally:
        _reported(logging_obj, args, kwargs)


def _succeeded(logging_obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = call_of(logging_obj)
    if call is None or call.over:
        return
    result = args[0] if args else kwargs.get("result")
    cache_hit = args[3] if len(args) > 3 else kwargs.get("cache_hit")
    if cache_hit:
        call.release()
    elif isinstance(result, list):
        # The messages of a realtime session that has ended.
        call.chunks = result
        call.abandon()
    elif result is not None and not isinstance(result, litellm.ModelResponseStream) and not streams.is_stream(result):
        # LiteLLM also reports each chunk of a stream here. Only a whole answer shows what the call cost.
        call.answered(_answer_in(result), kwargs.get("response_cost"), logging_obj)


def _answer_in(result: Any) -> Any:
    """Return the answer inside the last event of a Responses API stream; any other result unchanged."""
    carried = getattr(result, "response", None) if hasattr(result, "type") else None
    return result if carried is None else carried


def _reported(logging_obj: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Charge what LiteLLM has reported as a success. By now it knows the cost. Some jobs are priced by their reports
    alone.
    """
    if free_function_of(logging_obj):
        _charge_reported(
            logging_obj, args[0] if args else kwargs.get("result"), logging_obj.model_call_details.get("response_cost")
        )


def _charge_reported(logging_obj: Any, result: Any, response_cost: Any) -> None:
    """Charge what LiteLLM reports as the cost of a function of FREE, such as that of a finished batch. Each reported
    object is charged once, to the user who started it, else to the user who asked.
    """
    function = free_function_of(logging_obj)
    ledger = current_ledger() if function and response_cost else None
    if ledger is None or function.rpartition(":")[2] in PAID_BEFORE:
        return
    details: Mapping[str, Any] = logging_obj.model_call_details
    request = request_of(function, {**(details.get("litellm_params") or {}), **details})
    cost = pricing.cost_of_response(request, result, response_cost)
    if not cost.usd:
        return
    reported = field(result, "id")
    try:
        principal = payers_of(reported) or principal_of(ledger, request.params)
    except BudgetError as error:
        _logger.warning("the cost of %s is charged to the default user: %s", function, error)
        principal = ledger.principal(ledger.settings.default_user)
    # By the object alone, because several functions and routes report its cost. Without an id of the object, LiteLLM's
    # id of the call tells reports apart.
    mark = f"reported:{safe_name(str(reported or details.get('litellm_call_id')))}"
    if not ledger.reported.is_new(mark):
        return
    command = settlement_of(
        ledger, principal, pricing.model_names(request), cost, cost.usd, new_id(), (mark,), unless=mark
    )
    ledger.worker.deliver(command, ledger.settings.store_timeout)


def failure_handler(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Settle a failure that LiteLLM reports to callbacks."""
    _failed(logging_obj, args[0] if args else kwargs.get("exception"))
    with _litellm_reports():
        return original(logging_obj, *args, **kwargs)


async def async_failure_handler(
    original: Callable[..., Awaitable[Any]], logging_obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """Do what `failure_handler` does, for asynchronous calls."""
    _failed(logging_obj, args[0] if args else kwargs.get("exception"))
    with _litellm_reports():
        return await original(logging_obj, *args, **kwargs)


def exception_type(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Settle the failure of one attempt, before LiteLLM tries again: retries that succeed report no failure at all."""
    extra = kwargs.get("extra_kwargs") or {}
    logging_obj = extra.get("litellm_logging_obj")
    _failed(logging_obj, kwargs.get("original_exception"))
    binding = binding_of(logging_obj)
    if binding is not None and binding.refusal is not None:
        # A refusal at the tripwire. LiteLLM would turn it into a provider's error.
        refusal, binding.refusal = binding.refusal, None
        raise refusal
    return original(*args, **kwargs)


def _failed(logging_obj: Any, error: BaseException | None) -> None:
    call = call_of(logging_obj)
    if call is not None and error is not None:
        call.failed(error)
