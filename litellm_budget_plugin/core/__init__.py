"""The rules of the ledger. Pure: no input or output, no clock, no LiteLLM."""
