"""A warning about limits that are not enforced: they are set, LiteLLM is imported, but no BudgetCallback exists. Logged once per process."""

from __future__ import annotations

import logging
import sys

from litellm_budget_plugin.errors import BudgetError

_logger = logging.getLogger("litellm_budget_plugin")
_known = False


def registered() -> None:
    """Record that a BudgetCallback was created."""
    global _known
    _known = True


def warn_if_unregistered(place: str) -> None:
    """Log a WARNING if no BudgetCallback was created although the environment sets limits or cannot be read. Only the first call while
    LiteLLM is imported checks this. `place` names the function or class that the application has just used.
    """
    global _known
    if _known or "litellm" not in sys.modules:
        return
    _known = True
    # Imported only here: programs that never call LiteLLM also import budget_context.
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
