"""The use of a ledger by one process, and LiteLLM's BudgetManager on top of it."""
