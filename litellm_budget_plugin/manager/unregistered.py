"""Limits that nobody enforces: they are set, LiteLLM is in use, and no BudgetCallback was made. That is said once in a process."""

from __future__ import annotations

import logging
import sys

from litellm_budget_plugin.errors import BudgetError

_logger = logging.getLogger("litellm_budget_plugin")
_known = False


def registered() -> None:
    """A BudgetCallback was made."""
    global _known
    _known = True


def warn_if_unregistered(place: str) -> None:
    """Log a WARNING, the first time that this is called while LiteLLM is imported, if no BudgetCallback was made before although the
    environment sets limits. `place` is what the application has just used.
    """
    global _known
    if _known or "litellm" not in sys.modules:
        return
    _known = True
    # Not before it is needed: budget_context is imported by programs that never call LiteLLM.
    from litellm_budget_plugin.settings import BudgetSettings

    try:
        settings = BudgetSettings()
        policy = settings.read_policy()
        unenforced = settings.mode != "off" and policy.limited
        why = "limits are set (LITELLM_BUDGET_...)"
    except BudgetError as error:
        unenforced, why = True, f"the settings cannot be read ({error})"
    if unenforced:
        _logger.warning(
            "%s is used and %s, but there is no BudgetCallback in this process, so LiteLLM's calls are not limited: "
            "litellm.callbacks = [BudgetCallback()], import litellm_budget_plugin.auto, or litellm-budget run",
            place,
            why,
        )
