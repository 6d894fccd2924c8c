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
from litellm_budget_plugin.hooks.call_binding import Binding
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of

# Weak, for contexts are copied into tasks and timers that live on: they must not keep a call from ending.
_sending: ContextVar[weakref.ref[Binding] | None] = ContextVar("litellm_budget_sending", default=None)


def sending(binding: Binding) -> None:
    """What is sent next in this context is a request of this call.

    To be said at the gate, which runs in the task of an asynchronous call, where LiteLLM may contact the provider's SDK from
    another context than that of `Logging.pre_call`; and there, for calls that came around the gate.
    """
    _sending.set(weakref.ref(binding))


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
    found = _sending.get()
    binding = found() if found is not None else None
    if binding is None or (error is not None and outcome_of(error) is Outcome.FREE):
        return
    with binding.lock:
        call = binding.call
        # One that was answered says that the SDK is at work for somebody else in what was this call's context.
        if not call.sent or call.over or call.chunks is not None:
            return
        try:
            binding.call = call.sent_again()
        except BudgetError as refusal:
            # LiteLLM would make a provider's error of it.
            binding.refusal = refusal
            raise
