"""Where the ledger lives: one module or folder for each engine."""
