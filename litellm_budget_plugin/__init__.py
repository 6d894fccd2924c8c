"""Enforced per-user budgets for every call through LiteLLM.

    import litellm
    from litellm_budget_plugin import BudgetCallback

    litellm.callbacks = [BudgetCallback()]

The public names are loaded when they are first used: importing the package does not import LiteLLM.
"""

from __future__ import annotations

# Not imported from typing: that import takes longer than the rest of a program that never imports LiteLLM.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litellm_budget_plugin.errors import (
        BudgetError,
        BudgetFileError,
        BudgetInputError,
        BudgetPriceUnknown,
        BudgetRefused,
        BudgetSettingsError,
        BudgetStoreError,
        BudgetStoreUnavailable,
        BudgetUserMissing,
        IncompatibleLiteLLMError,
        refusal_in,
    )
    from litellm_budget_plugin.hooks.callback import BudgetCallback
    from litellm_budget_plugin.hooks.context import budget_context
    from litellm_budget_plugin.hooks.exceptions import BudgetExceeded
    from litellm_budget_plugin.hooks.runs import budget_run
    from litellm_budget_plugin.hooks.selfcheck import check
    from litellm_budget_plugin.manager.alerts.alert import Alert
    from litellm_budget_plugin.manager.manager import BudgetManager
    from litellm_budget_plugin.settings import BudgetSettings

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "BudgetCallback",
    "BudgetError",
    "BudgetExceeded",
    "BudgetFileError",
    "BudgetInputError",
    "BudgetManager",
    "BudgetPriceUnknown",
    "BudgetRefused",
    "BudgetSettings",
    "BudgetSettingsError",
    "BudgetStoreError",
    "BudgetStoreUnavailable",
    "BudgetUserMissing",
    "IncompatibleLiteLLMError",
    "budget_context",
    "budget_run",
    "check",
    "refusal_in",
]

_MODULES = {
    "Alert": "manager.alerts.alert",
    "BudgetCallback": "hooks.callback",
    "BudgetExceeded": "hooks.exceptions",
    "BudgetManager": "manager.manager",
    "BudgetSettings": "settings",
    "budget_context": "hooks.context",
    "budget_run": "hooks.runs",
    "check": "hooks.selfcheck",
}


_OLD_NAMES = ("LiteLLMChanged",)


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
