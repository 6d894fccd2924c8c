"""The gate and the tripwire: functions that wrap LiteLLM's own. The wrapped function is their first argument, its
arguments follow.

They act while a BudgetCallback is open. They look up the callback anew for every call.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import litellm
from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL

from litellm_budget_plugin.errors import BudgetError, BudgetUserMissing
from litellm_budget_plugin.hooks import passthrough, sdk_retries
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_binding import (
    Binding,
    attach_nested,
    bind,
    binding_of,
    call_of,
    free_function_of,
    mark_free,
    nested_calls,
)
from litellm_budget_plugin.hooks.call_types import Kind, by_position, kind_of, request_of, say_once, sent_request
from litellm_budget_plugin.hooks.deployments import candidates, names_group
from litellm_budget_plugin.hooks.near_limit.plan import plan_for
from litellm_budget_plugin.hooks.principal import principal_of
from litellm_budget_plugin.hooks.proxy_identity import caller_of
from litellm_budget_plugin.hooks.registration import current_ledger
from litellm_budget_plugin.hooks.streams import ask_for_usage
from litellm_budget_plugin.hooks.waiting import Place, place_of, wait_deferred
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.principal import Principal

# Weak: a context can live on in tasks and timers.
_of_request: ContextVar[weakref.ref[Binding] | None] = ContextVar("litellm_budget_call_of_request", default=None)
"""The call of the proxy request that is served in this context."""
_ADDITIONAL_ARGS = 3
"""The position of `additional_args` among the arguments of `Logging.pre_call`."""


def function_setup(
    original: Callable[..., Any], original_function: str, rules_obj: Any, start_time: Any, *args: Any, **kwargs: Any
) -> Any:
    """The gate: LiteLLM looks up this function for every call, also for names that were imported before the gate was in
    place.

    Exceptions raised here reach the caller unchanged. No request leaves, and no failure is counted against a
    deployment.
    """
    logging_obj, params = original(original_function, rules_obj, start_time, *args, **kwargs)
    # An earlier gate may still be inside a wrapper of other code. Then it has already held for this call.
    ledger = current_ledger() if binding_of(logging_obj) is None and not attach_nested(logging_obj) else None
    kind = kind_of(original_function) if ledger is not None else None
    if ledger is None or kind is None:
        return logging_obj, params
    if kind.free:
        mark_free(logging_obj, kind.free)
        return logging_obj, params
    call: Call | None = None
    try:
        call = _new_call(ledger, kind, args, params)
        place = _place_of(kind, params) if ledger.settings.wait_for_held else Place.NOWHERE
        binding = _admit(logging_obj, call, place)
        if call.to_be_routed:
            _of_request.set(weakref.ref(binding))
        if call.plan is not None and call.waiter is None:
            call.plan.apply(params, call.user)
        if ledger.settings.mode == "enforce":
            say_once(params)
            if ledger.settings.stream_usage:
                ask_for_usage(call, params)
    except BaseException:
        if call is not None:
            call.release()
        _unstamp(logging_obj)
        raise
    return logging_obj, params


def _place_of(kind: Kind, params: Mapping[str, Any]) -> Place:
    if kind.function is None:
        # The proxy sets up its requests itself, on its event loop. Later it calls `proxied`.
        return place_of(True) if caller_of(params) is not None else Place.NOWHERE
    if not kind.asynchronous:
        return place_of(False)
    return place_of(True) if kind.awaits and _comes_to_deployment_hook() else Place.NOWHERE


def _comes_to_deployment_hook() -> bool:
    """Whether `deployment_hook` is where LiteLLM looks up its function, or inside a wrapper that other code has put
    around it. If it is gone, a deferred call would pass without a hold.
    """
    found: Any = litellm.utils.async_pre_call_deployment_hook
    while found is not None:
        if getattr(found, "litellm_budget_gate", None) is deployment_hook:
            return True
        found = getattr(found, "__wrapped__", None)
    return False


async def deployment_hook(original: Callable[..., Awaitable[Any]], kwargs: Any, *args: Any, **more: Any) -> Any:
    """Have deferred calls wait here. LiteLLM awaits this for each asynchronous call between the gate and the request.

    Exceptions raised here go through LiteLLM's handling of failures.
    """
    call = call_of(kwargs.get("litellm_logging_obj")) if isinstance(kwargs, dict) else None
    if call is not None and call.waiter is not None:
        try:
            await _wait(call, kwargs)
        except BaseException:
            # With retries, LiteLLM would call the provider's function with these arguments and bypass the gate. For the
            # application's own handlers it would even bypass the tripwire. So no retries are left here; a new call goes
            # through the gate again.
            kwargs["num_retries"] = 0
            kwargs.pop("retry_policy", None)
            kwargs.pop("litellm_logging_obj", None)
            raise
    return await original(kwargs, *args, **more)


async def _wait(call: Call, params: dict[str, Any]) -> None:
    await wait_deferred(call)
    if call.plan is not None:
        call.plan.apply(params, call.user)


def _new_call(ledger: BudgetLedger, kind: Kind, args: tuple[Any, ...], params: dict[str, Any]) -> Call:
    request = request_of(kind.family, params, args, kind.function)
    principal = _principal(ledger, params)
    if names_group(request):
        # The proxy sets up a call once, for a group. A Router outside of the proxy sets it up for each deployment.
        return Call(ledger, principal, request, candidates(request))
    return Call(ledger, principal, request, plan=plan_for(ledger.settings, request, by_position(args, kind.function)))


def _principal(ledger: BudgetLedger, params: Mapping[str, Any]) -> Principal:
    """Return the payer and the budgets that count for a call."""
    try:
        return principal_of(ledger, params)
    except BudgetUserMissing as error:
        ledger.refused("user", "missing")
        ledger.tell_refusal(error)
        raise


async def proxied(ledger: BudgetLedger, caller: Any, data: dict[str, Any], call_type: str) -> None:
    """Hold for a request of the proxy. The proxy calls this through its callbacks once for each request, before
    routing. `caller` has been authenticated.

    Raises what `admission.admit` raises, for pass-through requests, which no other part of LiteLLM sees, and for
    requests that waited for money that others held.
    """
    logging_obj = data.get("litellm_logging_obj")
    call = call_of(logging_obj)
    if call_type == passthrough.CALL_TYPE:
        principal = _principal(ledger, {"metadata": {"user_api_key_auth": caller}})
        # A websocket's request carries no Logging object. It is only refused or let through.
        opened = passthrough.PassThrough(ledger, principal, data, logging_obj)
        if logging_obj is None:
            opened.admit()
            opened.release()
        elif call is None:
            binding = _admit(logging_obj, opened, Place.LATER)
            _of_request.set(weakref.ref(binding))
            await wait_deferred(opened)
    elif call is not None and "," in call.asked.model:
        # One request to several models at once, on one Logging object. Each of them is set up, and held for,
        # separately.
        call.release()
        del data["litellm_logging_obj"]
    elif call is not None and call.waiter is not None:
        await _wait(call, data)


def request_failed() -> None:
    """End a request that the proxy has given up. What was sent of it is charged. Its money is released without waiting
    for the end of LiteLLM's Logging object, which errors keep alive.
    """
    found = _of_request.get()
    binding = found() if found is not None else None
    if binding is not None:
        binding.call.abandon()


def _admit(logging_obj: Any, call: Call, place: Place = Place.NOWHERE) -> Binding:
    """Bind the call to the Logging object before holding for it, so that its end is noticed whatever happens in
    between.
    """
    binding = bind(logging_obj, call)
    call.admit(place)
    sdk_retries.sending(binding)
    return binding


def _unstamp(logging_obj: Any) -> None:
    """Undo what LiteLLM's set-up left in the context, because its call will not take place."""
    restore = getattr(logging_obj, "_restore_correlation_context", None)
    if restore is not None:
        restore()


def pre_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The tripwire, right before a provider is contacted. It opens attempts. It holds for calls that bypassed the gate,
    and for what the body asks for beyond the arguments that the gate has read.
    """
    details: Mapping[str, Any] = logging_obj.model_call_details
    if LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL in details:
        # The proxy logs a request that it turns down as if it called a provider.
        return original(logging_obj, *args, **kwargs)
    given = args[_ADDITIONAL_ARGS] if len(args) > _ADDITIONAL_ARGS else kwargs.get("additional_args")
    body = given.get("complete_input_dict") if isinstance(given, Mapping) else None
    try:
        binding = binding_of(logging_obj) or _around_the_gate(logging_obj, details, body)
        if binding is not None:
            with binding.lock:
                binding.call = binding.call.sending(details, body or details.get("optional_params"))
    except BudgetError as error:
        refused = binding_of(logging_obj)
        if refused is not None:
            refused.refusal = error
        raise
    return original(logging_obj, *args, **kwargs)


def _around_the_gate(logging_obj: Any, details: Mapping[str, Any], body: object) -> Binding | None:
    """Hold for a call that was not set up here. Its Logging object was passed in, so its label is not reliable."""
    ledger = current_ledger()
    if ledger is None or (free_function_of(logging_obj) and not _reaches_a_model(details, body)):
        return None
    request = sent_request(details)
    return _admit(logging_obj, Call(ledger, _principal(ledger, request.params), request))


def _reaches_a_model(details: Mapping[str, Any], body: object) -> bool:
    """Whether a request of a function that costs nothing goes to a model nevertheless."""
    asks = isinstance(body, Mapping) and any(body.get(name) for name in ("messages", "contents", "prompt"))
    return bool(details.get("model")) and asks


def nested_in_chat(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Treat it as one call with one hold when LiteLLM serves `generate_content` through its own `completion`, as it
    does for models that are not Google's.
    """
    with nested_calls(kwargs.get("litellm_logging_obj")):
        return original(*args, **kwargs)


async def async_nested_in_chat(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Do what `nested_in_chat` does, for asynchronous calls."""
    with nested_calls(kwargs.get("litellm_logging_obj")):
        return await original(*args, **kwargs)
