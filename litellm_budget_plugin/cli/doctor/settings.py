"""Checks of the settings: their values, their sources, and names that are not settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from litellm_budget_plugin.cli.doctor.finding import Finding, failed, ok, printable, warning
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.settings import BudgetSettings, Origin, origins, unknown_names
from litellm_budget_plugin.stores.registry import masked

NOTHING_LIMITED = warning(
    "limits",
    "nothing is limited: no limit is set in the environment, in a file or by hand",
    "set LITELLM_BUDGET_DEFAULT_LIMIT or another limit, or set one by hand: litellm-budget set",
)
_URLS = ("LITELLM_BUDGET_STORE_URL", "LITELLM_BUDGET_API_BASE")


def check_settings(given: Mapping[str, Any], every: bool) -> Iterator[Finding]:
    """Report each setting that is not a default, and every name that is not a setting. Count the defaults, or name them with
    `every`.
    """
    found = origins(given)
    # A setting that an option clears is not the user's choice.
    named = [each for each in found if each.source != "default" and each.text not in ("None", "{}")]
    for each in named:
        yield ok("setting", f"{each.setting} = {_shown(each)} ({each.source})")
    defaults = [each.setting.removeprefix("LITELLM_BUDGET_") for each in found if each not in named]
    yield ok("setting", f"by default: {', '.join(defaults) if every else f'{len(defaults)} settings'}")
    for name, suggestion in unknown_names():
        if suggestion:
            yield failed(
                "setting",
                f"{printable(name)} is not a setting, and prevents every start",
                f"write {suggestion}, or unset it",
            )
        else:
            yield warning("setting", f"{printable(name)} is not a setting, and is ignored", "unset it")


def check_values(given: Mapping[str, Any]) -> tuple[BudgetSettings | None, Finding]:
    """Return the settings, None if one is invalid, with a finding."""
    try:
        settings = BudgetSettings(**given)
    except BudgetError as error:
        return None, failed(
            "settings", f"a service does not start: {error}", "correct it; docs/reference.md lists the settings"
        )
    if settings.mode != "enforce":
        advice = "set LITELLM_BUDGET_MODE=enforce once the limits are right"
        return settings, warning("settings", f"the mode is {settings.mode}: no call is refused", advice)
    return settings, ok("settings", "every value is accepted; the mode is enforce")


def check_file(settings: BudgetSettings) -> tuple[Policy | None, list[Finding]]:
    """Return the policy, None if the budget file is invalid, with a finding about the limits that are set outside of the ledger."""
    try:
        policy = settings.read_policy()
    except BudgetError as error:
        return None, [failed("limits", str(error), "correct the file; `litellm-budget check` verifies it")]
    scopes = [f"each {scope}" for scope in policy.scopes]
    named = [("class", len(policy.classes)), ("subject", len(policy.subjects))]
    tables = [
        f"{number} {what}{'' if number == 1 else 'es' if what == 'class' else 's'}" for what, number in named if number
    ]
    where = "in the environment" if settings.file is None else f"in the environment and {printable(settings.file)}"
    return policy, [ok("limits", f"set {where}: {', '.join([*scopes, *tables]) or 'none'}")]


def _shown(origin: Origin) -> str:
    text = origin.text or ""
    if not origin.secret:
        return printable(text)
    return printable(masked(text)) if origin.setting in _URLS and "://" in text else "***"
