"""Requests that OpenAI's SDK repeats by itself, below everything that LiteLLM reports: two more after a timeout or an HTTP
error, unless `max_retries` says otherwise. Each one that may have been served before is an attempt of its own.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.carrier import call_of
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of

# Weak, for contexts are copied into tasks and timers that live on: they must not keep a call from ending.
_sending: ContextVar[weakref.ref[Any] | None] = ContextVar("litellm_budget_sending", default=None)


def sending(logging_obj: Any) -> None:
    """What is sent next in this context is the request of the call that `logging_obj` carries.

    To be said at the gate, which runs in the task of an asynchronous call, where LiteLLM may contact the provider's SDK from
    another context than that of `Logging.pre_call`; and there, for calls that came around the gate.
    """
    _sending.set(weakref.ref(logging_obj))


def sleep_for_retry(original: Callable[..., Any], client: Any, *args: Any, **kwargs: Any) -> Any:
    """The SDK is about to repeat a request, from within the handler of what ended the one before."""
    _repeat(sys.exc_info()[1])
    return original(client, *args, **kwargs)


async def async_sleep_for_retry(original: Callable[..., Awaitable[Any]], client: Any, *args: Any, **kwargs: Any) -> Any:
    """The SDK is about to repeat a request of an asynchronous call."""
    _repeat(sys.exc_info()[1])
    return await original(client, *args, **kwargs)


def _repeat(error: BaseException | None) -> None:
    """Charge the request that `error` ended as lost, and hold for the next. One that was free leaves its hold to the next."""
    sent = _sending.get()
    logging_obj = None if sent is None else sent()
    call = call_of(logging_obj)
    attempt = None if call is None else call.attempt
    # One that was answered says that the SDK is at work for somebody else in what was this call's context.
    if call is None or attempt is None or not attempt.sent or attempt.over or attempt.chunks is not None:
        return
    if error is not None and outcome_of(error) is Outcome.FREE:
        return
    request = attempt.request
    try:
        call.sending(lambda: request)
    except BudgetError as refusal:
        # LiteLLM would make a provider's error of it.
        call.refusal = refusal
        raise
