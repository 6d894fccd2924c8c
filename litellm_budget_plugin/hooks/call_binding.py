"""How a call travels with LiteLLM's Logging object, and how its end is noticed when nobody reports it."""

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
    """What a Logging object, and every copy of it, carries of a call: its latest attempt.

    Dropped and cancelled calls fire no event at all: that the last Logging object is gone is the one sign of them.
    """

    __slots__ = ("__weakref__", "call", "lock", "refusal")

    def __init__(self, call: Call) -> None:
        self.call = call
        """The latest attempt."""
        self.lock = threading.Lock()
        self.refusal: Exception | None = None
        """A refusal on its way to the caller, of which LiteLLM would make a provider's error."""

    def __del__(self) -> None:
        self.call.dropped()

    # LiteLLM copies the arguments of a call, and with them the Logging object: a copy is still the same call.
    def __copy__(self) -> Binding:
        return self

    def __deepcopy__(self, memo: Any) -> Binding:
        return self


# Weak, for contexts are copied into tasks and timers that live on: they must not keep a call from ending.
_parent: ContextVar[weakref.ref[Binding] | None] = ContextVar("litellm_budget_parent_call", default=None)


def bind(logging_obj: Any, call: Call) -> Binding:
    """Have the Logging object carry a call of its own."""
    binding = Binding(call)
    setattr(logging_obj, _ATTRIBUTE, binding)
    return binding


def binding_of(logging_obj: Any) -> Binding | None:
    """What a Logging object carries."""
    binding = getattr(logging_obj, _ATTRIBUTE, None)
    return binding if isinstance(binding, Binding) else None


def call_of(logging_obj: Any) -> Call | None:
    """The latest attempt of the call that a Logging object carries."""
    binding = binding_of(logging_obj)
    return None if binding is None else binding.call


@contextmanager
def nested_calls(logging_obj: Any) -> Iterator[None]:
    """Within this context LiteLLM makes the call of `logging_obj` by calling another public function of its own."""
    binding = binding_of(logging_obj)
    token = _parent.set(None if binding is None else weakref.ref(binding))
    try:
        yield
    finally:
        _parent.reset(token)


def attach_nested(logging_obj: Any) -> bool:
    """Whether a new Logging object belongs to a call that LiteLLM makes for another one: it carries that one then."""
    parent = _parent.get()
    binding = None if parent is None else parent()
    if binding is None:
        return False
    setattr(logging_obj, _ATTRIBUTE, binding)
    return True


def mark_free(logging_obj: Any, function: str) -> None:
    """The Logging object belongs to a call of a function that costs nothing."""
    setattr(logging_obj, _FREE, function)


def free_function_of(logging_obj: Any) -> str:
    """The function of FREE whose call a Logging object belongs to; empty if it belongs to none."""
    found = getattr(logging_obj, _FREE, "")
    return found if isinstance(found, str) else ""
