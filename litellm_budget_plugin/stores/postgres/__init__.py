"""The ledger in PostgreSQL: tables only; the rules run in the client."""
