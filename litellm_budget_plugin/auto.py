"""Budgets without code changes: `import litellm_budget_plugin.auto`, or `litellm-budget run -- python app.py`.

A BudgetCallback is opened from the environment (LITELLM_BUDGET_...) as soon as LiteLLM is imported, or at once if it was imported
before. Importing this module takes no noticeable time; repeated imports, also from several threads, have no further effect. If budgets
cannot be enforced, the process ends with exit code 3. With ON_START_ERROR=warn it continues without budgets.

While the application has its own BudgetCallback open, only that one acts. After it is closed, this one acts again.
"""

from __future__ import annotations

from litellm_budget_plugin.startup.sitecustomize import watch

__all__: list[str] = []

watch()
