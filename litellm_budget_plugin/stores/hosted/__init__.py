"""The ledger behind LiteLLM's own budget protocol: one dictionary of users' records, read and replaced as a whole."""
