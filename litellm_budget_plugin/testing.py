"""Help for tests of applications that have budgets."""

from __future__ import annotations

from litellm_budget_plugin.hooks.registration import disabled

__all__ = ["disabled"]
