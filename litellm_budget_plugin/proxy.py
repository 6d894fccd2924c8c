"""Budgets inside the LiteLLM proxy:

    litellm_settings:
      callbacks: litellm_budget_plugin.proxy.budget_callback

Importing this module makes the callback, from the environment (LITELLM_BUDGET_...). A bad setting, or a ledger that cannot
be opened, raises BudgetSettingsError or BudgetStoreError, and so stops the proxy's start with its message.
"""

from __future__ import annotations

from litellm_budget_plugin.hooks.callback import BudgetCallback

__all__ = ["budget_callback"]

budget_callback = BudgetCallback()
