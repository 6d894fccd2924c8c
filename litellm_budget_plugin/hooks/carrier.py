"""How a call travels with LiteLLM's Logging object, and how its end is noticed when nobody reports it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.hooks.call import Call

_ATTRIBUTE = "_litellm_budget_call"


class Carrier:
    """What a Logging object, and every copy of it, carries of a call.

    Dropped and cancelled calls fire no event at all: that the last Logging object is gone is the one sign of them.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        weakref.finalize(self, call.dropped).atexit = False

    # LiteLLM copies the arguments of a call, and with them the Logging object: a copy is still the same call.
    def __copy__(self) -> Carrier:
        return self

    def __deepcopy__(self, memo: Any) -> Carrier:
        return self


# Weak, for contexts are copied into tasks and timers that live on: they must not keep a call from ending.
_serving: ContextVar[weakref.ref[Carrier] | None] = ContextVar("litellm_budget_serving", default=None)


def carry(logging_obj: Any, call: Call) -> None:
    """Have the Logging object carry a call of its own."""
    setattr(logging_obj, _ATTRIBUTE, Carrier(call))


def _carrier_of(logging_obj: Any) -> Carrier | None:
    carrier = getattr(logging_obj, _ATTRIBUTE, None)
    return carrier if isinstance(carrier, Carrier) else None


def call_of(logging_obj: Any) -> Call | None:
    """The call that a Logging object carries."""
    carrier = _carrier_of(logging_obj)
    return None if carrier is None else carrier.call


@contextmanager
def serving(logging_obj: Any) -> Iterator[None]:
    """Within this context LiteLLM serves the call of `logging_obj` by calling another public function of its own."""
    carrier = _carrier_of(logging_obj)
    token = _serving.set(None if carrier is None else weakref.ref(carrier))
    try:
        yield
    finally:
        _serving.reset(token)


def joins(logging_obj: Any) -> bool:
    """Whether a new Logging object belongs to a call that is being served: it carries that one then, which is held for."""
    served = _serving.get()
    carrier = None if served is None else served()
    if carrier is None:
        return False
    setattr(logging_obj, _ATTRIBUTE, carrier)
    return True
