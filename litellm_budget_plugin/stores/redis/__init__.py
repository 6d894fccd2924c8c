"""The ledger on a Redis or Valkey server, shared by the processes of many machines."""
