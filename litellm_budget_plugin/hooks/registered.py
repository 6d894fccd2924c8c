"""Which callback is registered now, and the alarm when a registered one has been overwritten."""

from __future__ import annotations

import logging

import litellm
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin.manager.ledger import BudgetLedger

_logger = logging.getLogger("litellm_budget_plugin")


class BudgetHook(CustomLogger):  # type: ignore[misc]  # LiteLLM's classes are Any here
    """What makes the gate act: a callback of this class in `litellm.callbacks`.

    `budget_ledger` is where money is held; None once the callback is closed, or if its mode is `off`.
    """

    budget_ledger: BudgetLedger | None = None


_seen: list[BudgetHook] = []


def registered_ledger() -> BudgetLedger | None:
    """The ledger of the first open budget callback in `litellm.callbacks`. Two of them hold once.

    A callback that was registered and no longer is, without having been closed, is reported once as an ERROR.
    """
    found = False
    for callback in litellm.callbacks:
        if isinstance(callback, BudgetHook):
            found = True
            if callback.budget_ledger is not None:
                if callback not in _seen:
                    _seen.append(callback)
                return callback.budget_ledger
    if _seen and not found:
        _report_overwritten()
    return None


def forget(callback: BudgetHook) -> None:
    """The callback was closed on purpose."""
    if callback in _seen:
        _seen.remove(callback)


def _report_overwritten() -> None:
    _seen.clear()
    _logger.error(
        "litellm.callbacks no longer holds the BudgetCallback that was registered: calls go out without a budget. "
        "Append to litellm.callbacks instead of assigning to it, or call callback.close() if this is wanted"
    )
