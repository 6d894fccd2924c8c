"""The gate and the tripwire: functions that stand around LiteLLM's own, the original first, its arguments after it.

They act while a BudgetCallback is in `litellm.callbacks`; which one is asked anew for every call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL

from litellm_budget_plugin.errors import BudgetError, BudgetUserMissing
from litellm_budget_plugin.hooks import passthrough
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.carrier import call_of, carry, joins, serving
from litellm_budget_plugin.hooks.deployments import candidates, chosen, names_group
from litellm_budget_plugin.hooks.principal import paying_user
from litellm_budget_plugin.hooks.registered import registered_ledger
from litellm_budget_plugin.hooks.requests import CALL_TYPES, by_position, later_request, logged_request, request_of
from litellm_budget_plugin.hooks.thrift import thrift_for
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.pricing import Request

_of_request: ContextVar[Call | None] = ContextVar("litellm_budget_call_of_request", default=None)
"""The call of the proxy's request that is being served in this context."""


def function_setup(
    original: Callable[..., Any], original_function: str, rules_obj: Any, start_time: Any, *args: Any, **kwargs: Any
) -> Any:
    """The gate: LiteLLM looks this function up for every call, also for names imported before the gate was armed.

    What is raised here reaches the caller as it is; no request leaves, and no failure is counted against a deployment.
    """
    logging_obj, params = original(original_function, rules_obj, start_time, *args, **kwargs)
    # Inside somebody else's wrapper an earlier gate may still stand; it has held for this call then.
    if original_function in CALL_TYPES and call_of(logging_obj) is None and not joins(logging_obj):
        ledger = registered_ledger()
        if ledger is not None:
            try:
                request = request_of(original_function, args, params)
                call = _new_call(ledger, request, by_position(original_function, args))
                _admit(logging_obj, call)
                if call.thrift is not None:
                    call.thrift.apply(params, call.user)
            except BaseException:
                _unstamp(logging_obj)
                raise
    return logging_obj, params


def _new_call(ledger: BudgetLedger, request: Request, fixed: frozenset[str]) -> Call:
    user = _payer(ledger, request.params)
    if not names_group(request):
        return Call(ledger, user, request, thrift=thrift_for(ledger.settings, request, fixed))
    # The proxy sets a call up once, for a group; a Router outside of it, for each deployment.
    call = Call(ledger, user, request, candidates(request))
    _of_request.set(call)
    return call


def _payer(ledger: BudgetLedger, params: Mapping[str, Any]) -> str:
    try:
        return paying_user(ledger.settings, params)
    except BudgetUserMissing:
        ledger.refused("user", "missing")
        raise


def proxied(ledger: BudgetLedger, caller: Any, data: dict[str, Any], call_type: str) -> None:
    """What the proxy asks its callbacks once for each request, before it is routed; `caller` has been authenticated.

    Raises what `admission.admit` raises, for pass-through requests, which no other part of LiteLLM sees.
    """
    logging_obj = data.get("litellm_logging_obj")
    call = call_of(logging_obj)
    if call_type == passthrough.CALL_TYPE:
        user = _payer(ledger, {"metadata": {"user_api_key_auth": caller}})
        # A websocket's request carries no Logging object: it is refused or let pass, and that is all.
        opened = passthrough.PassThrough(ledger, user, data, logging_obj)
        if logging_obj is None:
            opened.admit()
            opened.attempt.release()
        elif call is None:
            _of_request.set(opened)
            _admit(logging_obj, opened)
    elif call is not None and "," in call.asked.model:
        # One request to several models at once, on one Logging object: each of them is set up, and held for, by itself.
        call.attempt.release()
        del data["litellm_logging_obj"]


def request_failed() -> None:
    """The proxy gives its request up: what was sent of it is charged, and its money comes back without waiting for the
    end of LiteLLM's Logging object, which errors keep alive.
    """
    call = _of_request.get()
    if call is not None:
        call.given_up()


def _admit(logging_obj: Any, call: Call) -> None:
    """Carry the call on the Logging object, and only then hold for it: whatever happens in between, its end is noticed."""
    carry(logging_obj, call)
    call.admit()


def _unstamp(logging_obj: Any) -> None:
    """Undo what LiteLLM's set-up left on the context: the call that it belongs to will not take place."""
    restore = getattr(logging_obj, "_restore_correlation_context", None)
    if restore is not None:
        restore()


def pre_call(original: Callable[..., Any], logging_obj: Any, *args: Any, **kwargs: Any) -> Any:
    """The tripwire right before a provider is contacted: it opens attempts, and holds for calls that came around the gate."""
    if LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL in logging_obj.model_call_details:
        # The proxy logs a request that it turns down as if it were calling somebody.
        return original(logging_obj, *args, **kwargs)
    try:
        call = call_of(logging_obj) or _ungated(logging_obj)
        if call is not None:
            asked = call.asked
            call.sending(lambda: chosen(later_request(asked, logging_obj), logging_obj.model_call_details))
    except BudgetError as error:
        refused = call_of(logging_obj)
        if refused is not None:
            refused.refusal = error
        raise
    return original(logging_obj, *args, **kwargs)


def _ungated(logging_obj: Any) -> Call | None:
    call_type = getattr(logging_obj, "call_type", None)
    if call_type not in CALL_TYPES:
        return None
    ledger = registered_ledger()
    if ledger is None:
        return None
    request = logged_request(call_type, logging_obj.model_call_details)
    call = Call(ledger, _payer(ledger, request.params), request)
    _admit(logging_obj, call)
    return call


def served_by_chat(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """LiteLLM serves `generate_content` for models that are not Google's by calling its own `completion`: one call, held once."""
    with serving(kwargs.get("litellm_logging_obj")):
        return original(*args, **kwargs)


async def async_served_by_chat(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """The same, for asynchronous calls."""
    with serving(kwargs.get("litellm_logging_obj")):
        return await original(*args, **kwargs)
