"""Which callback is registered now, and the alarm when one that should be is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import litellm
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin.manager.ledger import BudgetLedger

_logger = logging.getLogger("litellm_budget_plugin")


class BudgetHook(CustomLogger):  # type: ignore[misc]  # LiteLLM's classes are Any here
    """What makes the gate act: a callback of this class in `litellm.callbacks`.

    `budget_ledger` is where money is held; None once the callback is closed, or if its mode is `off`.
    """

    budget_ledger: BudgetLedger | None = None


_expected: list[BudgetHook] = []
_on_trial: ContextVar[BudgetLedger | None] = ContextVar("litellm_budget_on_trial", default=None)


def expect(callback: BudgetHook) -> None:
    """The callback should be in `litellm.callbacks` from now on."""
    if callback not in _expected:
        _expected.append(callback)


def registered_ledger() -> BudgetLedger | None:
    """The ledger of the first open budget callback in `litellm.callbacks`. Two of them hold once.

    A callback that was made and is not there, without having been closed, is reported once as an ERROR: it was never
    registered, somebody has assigned a new list, or LiteLLM's limit of callbacks has kept it out.
    """
    found = False
    for callback in litellm.callbacks:
        if isinstance(callback, BudgetHook):
            found = True
            if callback.budget_ledger is not None:
                expect(callback)
                return _on_trial.get() or callback.budget_ledger
    if _expected and not found:
        _report_missing()
    return None


@contextmanager
def on_trial(ledger: BudgetLedger) -> Iterator[None]:
    """Within this context, calls that the registered callback would hold for are held on `ledger` instead."""
    token = _on_trial.set(ledger)
    try:
        yield
    finally:
        _on_trial.reset(token)


def forget(callback: BudgetHook) -> None:
    """The callback was closed on purpose."""
    if callback in _expected:
        _expected.remove(callback)


def _report_missing() -> None:
    _expected.clear()
    _logger.error(
        "litellm.callbacks does not hold the BudgetCallback: calls go out without a budget. It was never registered, somebody "
        "has assigned another list, or LITELLM_MAX_CALLBACKS has kept it out. Append it to litellm.callbacks, or call "
        "callback.close() if this is wanted"
    )
