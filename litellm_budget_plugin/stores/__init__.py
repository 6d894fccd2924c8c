"""The stores that keep the ledger: one module or folder for each engine."""
