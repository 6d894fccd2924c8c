"""The ledger behind an HTTP endpoint."""
