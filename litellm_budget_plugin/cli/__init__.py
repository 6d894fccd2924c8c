"""The command litellm-budget: manages budgets and ledgers by hand. It starts without LiteLLM.

Exit codes: 0 done, 1 failed (the message is on standard error), 2 bad arguments. `status` and `doctor` have their own, as
monitoring systems expect them: 0 ok, 1 warning, 2 critical, 3 unknown.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from litellm_budget_plugin.cli.app import app

    app(prog_name="litellm-budget")
