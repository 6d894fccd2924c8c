"""The command litellm-budget: what is done to a ledger by hand. It starts without LiteLLM.

Exit codes: 0 done, 1 failed (the message is on standard error), 2 bad arguments.
"""

from __future__ import annotations

_EXTRA = ("click", "rich")


def main() -> None:
    """Run the command line. Without the extra that it needs, it says what to install."""
    try:
        from litellm_budget_plugin.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise SystemExit(
            f"litellm-budget needs {error.name}, which is not installed; run: pip install 'litellm-budget-plugin[cli]'"
        ) from None
    app(prog_name="litellm-budget")
