"""The ledger as one process uses it, and LiteLLM's BudgetManager on top of it."""
