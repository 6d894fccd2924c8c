"""The ledger in PostgreSQL: tables and one server-side function for each command."""
