"""The callback that the environment opens when LiteLLM is imported, without any line in the application."""

from __future__ import annotations

import sys
import threading

from litellm_budget_plugin.hooks.callback import BudgetCallback
from litellm_budget_plugin.hooks.instrument import put_back

_arming = threading.Lock()
_armed: BudgetCallback | None = None


class AutomaticCallback(BudgetCallback):
    """A BudgetCallback that the application did not make. It does nothing while one of the application's own is open."""

    automatic = True


def arm_automatic() -> None:
    """Open the callback and add it to `litellm.callbacks`. If this was done before, restore what is missing.

    Raises what BudgetCallback raises, and IncompatibleLiteLLMError if LiteLLM was loaded a second time.
    """
    global _armed
    with _arming:
        if _armed is None or _armed._closed:
            _armed = AutomaticCallback()
        else:
            put_back()
        # Not the module that this one knows: LiteLLM may have been imported again after a failed import.
        listed = sys.modules["litellm"].callbacks
        if not any(callback is _armed for callback in listed):
            listed.append(_armed)
