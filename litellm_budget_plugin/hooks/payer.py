"""Who pays for a call: resolved once, at the gate, because a context may be gone when the call is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError, BudgetUserMissing
from litellm_budget_plugin.hooks.caller import account_of, caller_of
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")
_context_user: ContextVar[str | None] = ContextVar("litellm_budget_user", default=None)
_warned: set[str] = set()


@contextmanager
def budget_context(*, user: str | int) -> Iterator[None]:
    """Within this context, LiteLLM calls are paid by `user` (1 to 256 printable characters; integers become text).

    It holds for calls made in the same thread or task, in tasks started from it and in `asyncio.to_thread`; not in threads
    or executors of one's own, nor inside `litellm.batch_completion`. Raises BudgetInputError for a bad id.
    """
    token = _context_user.set(checked_id(user, "budget_context(user=...)"))
    try:
        yield
    finally:
        _context_user.reset(token)


def paying_user(settings: BudgetSettings, params: Mapping[str, Any]) -> str:
    """The id of the user who pays for a call with these keyword arguments.

    For a request of the LiteLLM proxy that is the user, else the key, that the proxy has authenticated, whatever USER_FROM
    says; what its client wrote into the request names nobody.

    Raises BudgetInputError for an id that cannot be one, BudgetUserMissing where the settings ask for a user; in shadow
    mode neither, but logs what it would have raised and names the default user.
    """
    try:
        return _found_user(settings, params)
    except (BudgetInputError, BudgetUserMissing) as error:
        if settings.mode != "shadow":
            raise
        _logger.warning("shadow mode: this call would be refused: %s", error)
        return settings.default_user


def _found_user(settings: BudgetSettings, params: Mapping[str, Any]) -> str:
    sources = settings.user_sources if caller_of(params) is None else _PROXY_SOURCES
    for source in sources:
        found = _FINDERS[source](params) if source != "default" else None
        if found is not None and found != "":
            return checked_id(found, f"the user of this call (from {source})")
    if settings.on_missing_user == "reject":
        raise BudgetUserMissing(
            "this call names no user; a user is looked for in "
            f"{', '.join(sources)}: pass user=..., metadata={{'budget_user': ...}} or use budget_context"
        )
    if settings.project not in _warned:
        _warned.add(settings.project)
        _logger.warning("a call names no user; such calls are charged to %r", settings.default_user)
    return settings.default_user


def _from_metadata(params: Mapping[str, Any]) -> Any:
    for name in ("litellm_metadata", "metadata"):
        metadata = params.get(name)
        if isinstance(metadata, Mapping) and metadata.get("budget_user") not in (None, ""):
            return metadata["budget_user"]
    return None


def _from_proxy(params: Mapping[str, Any]) -> Any:
    caller = caller_of(params)
    return None if caller is None else account_of(caller)


_PROXY_SOURCES = ("proxy", "context")
_FINDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "context": lambda params: _context_user.get(),
    "metadata": _from_metadata,
    "user": lambda params: params.get("user"),
    "proxy": _from_proxy,
}
