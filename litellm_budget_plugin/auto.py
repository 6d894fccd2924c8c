"""Budgets without a line about them: `import litellm_budget_plugin.auto`, or `litellm-budget run -- python app.py`.

A BudgetCallback is opened from the environment (LITELLM_BUDGET_...) as soon as LiteLLM is imported; at once, if it has been.
Importing this takes no noticeable time, and again and from several threads it is the same as once. If budgets cannot be enforced, the
process ends with exit code 3, or with ON_START_ERROR=warn goes on without them.

While the application has a BudgetCallback of its own open, that one acts, and the one from here again after it.
"""

from __future__ import annotations

from litellm_budget_plugin.startup.sitecustomize import watch

__all__: list[str] = []

watch()
