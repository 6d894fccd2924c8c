"""The payer of a call. It is resolved once, at the gate, because a context may be gone when the call is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError, BudgetUserMissing
from litellm_budget_plugin.hooks.context import NOBODY, Payer, checked_ids, ever_entered, payer_here
from litellm_budget_plugin.hooks.proxy_identity import account_of, caller_of, tags_of, team_of
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.principal import Given, Principal
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")
_LOST = (
    "; a budget_context was entered elsewhere in this process: budget_context.carry takes it into threads, executors and "
    "tasks, budget_context.iterate into generators"
)
_ADVICE = "; ON_MISSING_USER=reject refuses such calls"
_warned: set[tuple[str, str]] = set()


def principal_of(ledger: BudgetLedger, params: Mapping[str, Any]) -> Principal:
    """Return the payer of a call with these keyword arguments, the budgets that the call counts against, and their
    limits.

    For a request of the LiteLLM proxy, the payer is the authenticated user, or the key if there is no user, with its
    team and the key's tags, whatever USER_FROM says. Names that the client wrote into the request are ignored.

    Raises BudgetInputError for an invalid id, and BudgetUserMissing if the settings require a user. In shadow mode it
    raises neither. It logs the exception and names the default user.
    """
    try:
        payer = _found_payer(ledger.settings, params)
        return ledger.principal(payer.user or ledger.settings.default_user, payer.given)
    except (BudgetInputError, BudgetUserMissing) as error:
        if ledger.settings.mode != "shadow":
            raise
        _logger.warning("shadow mode: this call would be refused: %s", error)
        return ledger.principal(ledger.settings.default_user)


def _found_payer(settings: BudgetSettings, params: Mapping[str, Any]) -> Payer:
    sources = settings.user_sources if caller_of(params) is None else _PROXY_SOURCES
    said = [(source, _FINDERS[source](params)) for source in sources if source != "default"]
    # The settings say where to look for a user. What a block of the program counts against in addition, it always
    # counts against.
    payer = NOBODY if "context" in sources else payer_here()._replace(user=None)
    for source, one in reversed(said):
        user = None if one.user in (None, "") else checked_id(one.user, f"the user of this call (from {source})")
        payer = Payer(user, one.given).inside(payer)
    return payer._replace(user=_missing_user(settings, sources)) if payer.user is None else payer


def _missing_user(settings: BudgetSettings, sources: tuple[str, ...]) -> str:
    lost = _LOST if ever_entered() and "context" in sources else ""
    if settings.on_missing_user == "reject":
        raise BudgetUserMissing(
            "this call names no user; the user is taken from "
            f"{', '.join(sources)}: pass user=..., metadata={{'budget_user': ...}} or use budget_context{lost}",
            "Name the user who pays: pass user=..., metadata={'budget_user': ...} or use budget_context.",
        )
    if (settings.project, lost) not in _warned:
        _warned.add((settings.project, lost))
        _logger.warning(
            "a call names no user; such calls are charged to %r%s", settings.default_user, lost and lost + _ADVICE
        )
    return settings.default_user


def _from_metadata(params: Mapping[str, Any]) -> Payer:
    payer = NOBODY
    for name in ("metadata", "litellm_metadata"):
        metadata = params.get(name)
        if isinstance(metadata, Mapping):
            payer = _of_metadata(metadata).inside(payer)
    return payer


def _of_metadata(metadata: Mapping[str, Any]) -> Payer:
    def given(name: str) -> Any:
        value = metadata.get(name)
        return None if value == "" else value

    def checked(name: str) -> str | None:
        value = given(name)
        return None if value is None else checked_id(value, f"metadata[{name!r}]")

    run, tags = checked("budget_run"), given("budget_tags")
    return Payer(
        given("budget_user"),
        Given(
            checked("budget_team"),
            () if tags is None else checked_ids(tags, "metadata['budget_tags']"),
            () if run is None else (run,),
            checked("budget_class"),
        ),
    )


def _from_proxy(params: Mapping[str, Any]) -> Payer:
    caller = caller_of(params)
    if caller is None:
        return NOBODY
    team = team_of(caller)
    tags = checked_ids(tags_of(caller), "a tag of this key or team")
    return Payer(account_of(caller), Given(None if team is None else checked_id(team, "the team of this key"), tags))


_PROXY_SOURCES = ("proxy", "context")
_FINDERS: dict[str, Callable[[Mapping[str, Any]], Payer]] = {
    "context": lambda params: payer_here(),
    "metadata": _from_metadata,
    "user": lambda params: Payer(params.get("user")),
    "proxy": _from_proxy,
}
