"""The callback that the gate acts for, from its making until it is closed, even if it is removed from
`litellm.callbacks`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import litellm
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.unregistered import registered

_logger = logging.getLogger("litellm_budget_plugin")


class BudgetHook(CustomLogger):  # type: ignore[misc]  # LiteLLM's classes are Any here
    """A callback that the gate acts for. `budget_ledger` is the ledger where money is held; None once the callback is
    closed, or in mode `off`.
    """

    budget_ledger: BudgetLedger | None = None
    _ledger: BudgetLedger
    automatic = False
    """Whether the application did not make this callback. If so, it does nothing while another one is open."""


_LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
_open: list[BudgetHook] = []
_in_force: BudgetHook | None = None
"""The callback that the gate acted for last."""
_replaced: set[BudgetHook] = set()
_overriding: list[BudgetHook] = []
"""Callbacks that take precedence over all others, whatever is in the list. The newest one counts."""
_disabled = 0
_disabling = threading.Lock()
_ledger_override: ContextVar[BudgetLedger | None] = ContextVar("litellm_budget_ledger_override", default=None)


def register(callback: BudgetHook) -> None:
    """Have the gate act for this callback from now on."""
    registered()
    _open.append(callback)


def deregister(callback: BudgetHook) -> None:
    """Forget a callback that was closed."""
    if callback in _open:
        _open.remove(callback)
    _replaced.discard(callback)


def current_ledger() -> BudgetLedger | None:
    """Return the ledger that calls are held on. It belongs to the first open callback in `litellm.callbacks`, else to
    the one that was last there, else to the newest. A callback that the application has made takes precedence over an
    automatic one. None if none is open, or inside `disabled`.

    A list that was assigned without the callback is logged once, because applications and frameworks do that by
    accident.
    """
    global _in_force
    # No lock: a child that is forked while another thread holds one would wait for it forever.
    candidates = [callback for callback in _open.copy() if callback.budget_ledger is not None]
    if not candidates or _disabled:
        return None
    overriding = [callback for callback in _overriding.copy() if callback in candidates]
    if overriding:
        return _overridden() or overriding[-1].budget_ledger
    candidates = [callback for callback in candidates if not callback.automatic] or candidates
    listed = getattr(litellm, "callbacks", None) or ()
    callback = next((c for c in listed if isinstance(c, BudgetHook) and c in candidates), None)
    if callback is None:
        callback = _in_force if _in_force in candidates else candidates[-1]
        assert callback is not None
        if callback not in _replaced:
            _replaced.add(callback)
            _logger.info(
                "litellm.callbacks does not contain the BudgetCallback; budgets stay enforced until callback.close()"
            )
    _in_force = callback
    return _overridden() or callback.budget_ledger


def _overridden() -> BudgetLedger | None:
    ledger = _ledger_override.get()
    # A task that outlives the block has a copy of its context.
    return None if ledger is None or ledger.closed else ledger


def opened_ledger() -> BudgetLedger | None:
    """Return the ledger of an open callback, also inside `disabled` and in mode `off`, where calls are not held on it;
    None if none is open.
    """
    newest = _overriding or _open
    return current_ledger() or (newest[-1]._ledger if newest else None)


@contextmanager
def override_ledger(ledger: BudgetLedger) -> Iterator[None]:
    """Within this context, hold calls on `ledger` that would be held on the current ledger."""
    before = _ledger_override.get()
    _ledger_override.set(ledger)
    try:
        yield
    finally:
        # A generator may leave its block in another context than the one that it entered it in. So a token cannot be
        # reset.
        if _ledger_override.get() is ledger:
            _ledger_override.set(before)


@contextmanager
def override_callback(callback: BudgetHook) -> Iterator[None]:
    """Within this block the gate acts for `callback`, in all threads, and in this context even while another such block
    is open. Afterwards `litellm.callbacks`, and the lists into which LiteLLM copies it at a call, are as they were
    before.
    """
    listed = [(name, getattr(litellm, name), list(getattr(litellm, name))) for name in _LISTS if hasattr(litellm, name)]
    _overriding.append(callback)
    try:
        with override_ledger(callback._ledger):
            yield
    finally:
        _overriding.remove(callback)
        for name, held, content in listed:
            held[:] = content
            setattr(litellm, name, held)


@contextmanager
def disabled() -> Iterator[None]:
    """Within this block the gate lets every call of this process through, in all threads, and charges none of them.

    For tests of applications. Blocks may be nested and may overlap in threads. The gate acts again after the last one.
    """
    global _disabled
    with _disabling:
        _disabled += 1
    try:
        yield
    finally:
        with _disabling:
            _disabled -= 1
