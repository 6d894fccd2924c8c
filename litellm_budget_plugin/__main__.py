"""`python -m litellm_budget_plugin`: the command litellm-budget."""

from __future__ import annotations

from litellm_budget_plugin.cli import main

if __name__ == "__main__":
    main()
