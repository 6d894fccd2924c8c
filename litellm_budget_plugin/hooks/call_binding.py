"""Bind a call to LiteLLM's Logging object, and notice the end of a call that nobody reports."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.hooks.call import Call

_ATTRIBUTE = "_litellm_budget_call"
_FREE = "_litellm_budget_free"


class Binding:
    """The link from a Logging object, and from every copy of it, to the latest attempt of its call.

    Dropped and cancelled calls fire no event. Their only sign is that the last Logging object has been freed.
    """

    __slots__ = ("__weakref__", "call", "lock", "refusal")

    def __init__(self, call: Call) -> None:
        self.call = call
        """The latest attempt."""
        self.lock = threading.Lock()
        self.refusal: Exception | None = None
        """A refusal on its way to the caller. LiteLLM would turn it into a provider's error."""

    def __del__(self) -> None:
        self.call.dropped()

    # LiteLLM copies the arguments of a call, and with them the Logging object. A copy is still the same call.
    def __copy__(self) -> Binding:
        return self

    def __deepcopy__(self, memo: Any) -> Binding:
        return self


# Weak, because contexts are copied into tasks and timers that live on. They must not keep a call from ending.
_parent: ContextVar[weakref.ref[Binding] | None] = ContextVar("litellm_budget_parent_call", default=None)


def bind(logging_obj: Any, call: Call) -> Binding:
    """Bind a Logging object to a call of its own."""
    binding = Binding(call)
    setattr(logging_obj, _ATTRIBUTE, binding)
    return binding


def binding_of(logging_obj: Any) -> Binding | None:
    """Return the binding of a Logging object, if it has one."""
    binding = getattr(logging_obj, _ATTRIBUTE, None)
    return binding if isinstance(binding, Binding) else None


def call_of(logging_obj: Any) -> Call | None:
    """Return the latest attempt of the call that a Logging object is bound to."""
    binding = binding_of(logging_obj)
    return None if binding is None else binding.call


@contextmanager
def nested_calls(logging_obj: Any) -> Iterator[None]:
    """Mark this context: in it LiteLLM makes the call of `logging_obj` by calling another of its public functions."""
    binding = binding_of(logging_obj)
    token = _parent.set(None if binding is None else weakref.ref(binding))
    try:
        yield
    finally:
        _parent.reset(token)


def attach_nested(logging_obj: Any) -> bool:
    """Bind a new Logging object to the outer call if LiteLLM makes its call for another one. Return whether that is so."""
    parent = _parent.get()
    binding = None if parent is None else parent()
    if binding is None:
        return False
    setattr(logging_obj, _ATTRIBUTE, binding)
    return True


def mark_free(logging_obj: Any, function: str) -> None:
    """Mark a Logging object whose call is of a function that costs nothing."""
    setattr(logging_obj, _FREE, function)


def free_function_of(logging_obj: Any) -> str:
    """Return the function of FREE whose call a Logging object belongs to; empty if it belongs to none."""
    found = getattr(logging_obj, _FREE, "")
    return found if isinstance(found, str) else ""
