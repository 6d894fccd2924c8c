"""Problem documents of RFC 9457 that tell a client about a refusal."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from litellm_budget_plugin.errors import (
    BudgetInputError,
    BudgetPriceUnknown,
    BudgetRefused,
    BudgetStoreUnavailable,
    BudgetUserMissing,
    first_in,
)
from litellm_budget_plugin.web.requests import Request, serving

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.exceptions import BudgetExceeded

_logger = logging.getLogger("litellm_budget_plugin")

PROBLEM_TYPES = "https://github.com/litellm-budget-plugin/litellm-budget-plugin/blob/main/docs/reference.md#"
_HELD_SECONDS = 2
"""Seconds after which a client may try again if only calls in flight caused the refusal: about as long as one takes."""
_STORE_SECONDS = 5
_HIDDEN = {
    "held": "calls in flight leave no room in a budget that this request counts against; try again in a moment",
    "blocked": "an account that this request counts against is blocked",
}
_FIGURES = ("budget", "unit", "limit", "spent", "held", "remaining", "requested")
_USED_UP = "a budget that this request counts against has no room for it"


class Problem(NamedTuple):
    """A response for the client. `headers` are ASCII."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The reason phrase of the status."""
        return HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Refused"


def problem_of(error: BaseException) -> Problem | None:
    """Return the response to an error that ended a request; None for errors that are not about budgets."""
    found = first_in(error, (BudgetRefused, BudgetStoreUnavailable))
    if found is None:
        return None
    if found is not error:
        # It may hide a mistake that was made while the refusal was handled.
        _logger.warning("a request is answered with the refusal behind this error: %.300r", error)
    request = serving()
    if isinstance(found, BudgetStoreUnavailable):
        # The message may contain the store's address, which is only for the log.
        _logger.error("a request is answered with 503: %s", found)
        detail = "the ledger of budgets does not answer; try again later"
        return _document("ledger-unavailable", 503, "Budget ledger unavailable", detail, retry_after=_STORE_SECONDS)
    assert isinstance(found, BudgetRefused)
    status = request.middleware.status
    if isinstance(found, BudgetPriceUnknown):
        _logger.warning("a request is answered with %d: %s", status, found)
        return _document("price-unknown", status, "Price unknown", "no price is known for this model")
    if isinstance(found, BudgetUserMissing):
        _logger.warning("a request is answered with %d: %s", status, found)
        return _document("user-missing", status, "User missing", "the request names no user to charge")
    if not hasattr(found, "resets_at"):
        _logger.warning("a request is answered with %d: %s", status, found)
        return _document("call-refused", status, "Call refused", "the call was refused")
    return _exceeded(request, found)


def bad_id(error: BudgetInputError) -> Problem:
    """Return the response to an invalid id in a request."""
    return _document("bad-id", 400, "Bad id", str(error))


def nobody() -> Problem:
    """Return the response to a client that asks for its budgets without naming a user."""
    problem = _document("user-missing", 401, "User missing", "the request names no user")
    problem.headers["WWW-Authenticate"] = "Bearer"
    return problem


def _exceeded(request: Request, refusal: Any) -> Problem:
    exceeded: BudgetExceeded = refusal
    blocked = exceeded.reason == "blocked"
    resets_at: datetime | None = None if blocked else exceeded.resets_at
    # Waiting cannot help a call that alone exceeds the whole limit.
    never = resets_at is None or exceeded.requested > exceeded.limit
    wait = None if never or resets_at is None else max(1, math.ceil(resets_at.timestamp() - time.time()))
    if exceeded.reason == "held":
        wait = _HELD_SECONDS if wait is None else min(_HELD_SECONDS, wait)
    detail, headers = _HIDDEN.get(exceeded.reason, _USED_UP), {}
    members: dict[str, Any] = {"reason": exceeded.reason}
    if _may_see(request, exceeded):
        detail = str(exceeded)
        members |= {name: getattr(exceeded, name) for name in ("scope", "subject", "suggestion")}
        if not blocked:
            members |= {name: getattr(exceeded, name) for name in _FIGURES}
            members["resets_at"] = None if resets_at is None else resets_at.isoformat()
            headers = {"Budget-Limit": _plain(exceeded.limit), "Budget-Remaining": _plain(exceeded.remaining)}
            headers["Budget-Unit"] = exceeded.unit
    problem = _document("budget-exceeded", request.middleware.status, "Budget exceeded", detail, members, wait)
    problem.headers.update(headers)
    return problem


def _may_see(request: Request, exceeded: BudgetExceeded) -> bool:
    """Return whether this client may see the figures of a budget. A user's figures are only for that user: not for
    those who share the default user, and not for a request that the application had another user pay for.
    """
    if exceeded.scope not in request.middleware.expose:
        return False
    if exceeded.scope != "user" or exceeded.subject == request.user:
        return True
    from litellm_budget_plugin.hooks.registration import opened_ledger

    ledger = opened_ledger()
    shared = ledger is not None and exceeded.subject == ledger.settings.default_user
    return "user" not in request.middleware.sources and not shared


def _document(
    kind: str,
    status: int,
    title: str,
    detail: str,
    members: Mapping[str, Any] | None = None,
    retry_after: int | None = None,
) -> Problem:
    said: dict[str, Any] = {"type": PROBLEM_TYPES + kind, "title": title, "status": status, "detail": detail}
    said |= {name: value for name, value in (members or {}).items() if value is not None}
    body = json.dumps(said).encode()
    headers = {"Content-Type": "application/problem+json", **plain_headers(body)}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Problem(status, headers, body)


def plain_headers(body: bytes) -> dict[str, str]:
    """Return the headers of a response that is meant for one client only."""
    return {"Content-Length": str(len(body)), "Cache-Control": "no-store"}


def _plain(amount: float) -> str:
    """Return an amount without an exponent and without trailing zeros."""
    text = f"{Decimal(repr(amount)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def error_handler(error: Exception) -> Any:
    """Handle errors in Flask and Quart: `app.register_error_handler(Exception, error_handler)`.

    Returns the problem document of a refusal or an unreachable ledger, even if another error was made from it. Other HTTP errors keep
    their own responses, and other errors are raised again.
    """
    problem = problem_of(error)
    if problem is not None:
        return problem.body, problem.status, problem.headers
    if hasattr(error, "get_response"):  # one of Werkzeug's HTTP errors
        return error
    raise error
