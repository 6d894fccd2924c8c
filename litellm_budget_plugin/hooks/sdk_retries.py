"""Requests that OpenAI's SDK repeats by itself, which LiteLLM does not report. After a timeout or an HTTP error it
sends two more, unless `max_retries` says otherwise. If the previous request may have been served, the repetition is an
attempt of its own.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.call_binding import Binding
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of

# Weak, because contexts are copied into tasks and timers that live on. They must not keep a call from ending.
_sending: ContextVar[weakref.ref[Binding] | None] = ContextVar("litellm_budget_sending", default=None)


def sending(binding: Binding) -> None:
    """Note that the next request in this context belongs to this call.

    Must be called at the gate, which runs in the task of an asynchronous call: LiteLLM may call the provider's SDK in
    another context than that of `Logging.pre_call`. For calls that bypassed the gate it must be called in
    `Logging.pre_call`.
    """
    _sending.set(weakref.ref(binding))


def sleep_for_retry(original: Callable[..., Any], client: Any, *args: Any, **kwargs: Any) -> Any:
    """Note that the SDK is about to repeat a request. It runs in the handler of the exception that ended the previous
    one.
    """
    _repeat(sys.exc_info()[1])
    return original(client, *args, **kwargs)


async def async_sleep_for_retry(original: Callable[..., Awaitable[Any]], client: Any, *args: Any, **kwargs: Any) -> Any:
    """Note that the SDK is about to repeat a request of an asynchronous call."""
    _repeat(sys.exc_info()[1])
    return await original(client, *args, **kwargs)


def _repeat(error: BaseException | None) -> None:
    """Charge the request that `error` ended as lost, and hold for the next. A request that was free passes its hold on
    to the next.
    """
    found = _sending.get()
    binding = found() if found is not None else None
    if binding is None or (error is not None and outcome_of(error) is Outcome.FREE):
        return
    with binding.lock:
        call = binding.call
        # If the call was answered, the SDK is now working for another call in this call's context.
        if not call.sent or call.over or call.chunks is not None:
            return
        try:
            binding.call = call.sent_again()
        except BudgetError as refusal:
            # LiteLLM would turn it into a provider's error.
            binding.refusal = refusal
            raise
