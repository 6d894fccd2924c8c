"""Budgets inside the LiteLLM proxy:

    litellm_settings:
      callbacks: litellm_budget_plugin.proxy.budget_callback

Importing this module creates the callback from the environment (LITELLM_BUDGET_...). A bad setting raises BudgetSettingsError, and a
ledger that cannot be opened raises BudgetStoreError; either stops the proxy's start with its message.
"""

from __future__ import annotations

from litellm_budget_plugin.hooks.callback import BudgetCallback

__all__ = ["budget_callback"]

budget_callback = BudgetCallback()
