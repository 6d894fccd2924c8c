"""The self-hosted endpoint: budgets for every process that reaches it over HTTP, on any local or networked ledger."""
