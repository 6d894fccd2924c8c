"""What the ASGI and the WSGI middleware share: who pays for a request, and what its client is told of a refusal.

Private. Applications use `litellm_budget_plugin.asgi` and `litellm_budget_plugin.wsgi`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.sentences import parse_limit
from litellm_budget_plugin.errors import (
    BudgetError,
    BudgetInputError,
    BudgetPriceUnknown,
    BudgetRefused,
    BudgetStoreUnavailable,
    BudgetUserMissing,
    first_in,
)
from litellm_budget_plugin.hooks.context import budget_context, payer_here

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.exceptions import BudgetExceeded

_logger = logging.getLogger("litellm_budget_plugin")

PROBLEM_TYPES = "https://github.com/litellm-budget-plugin/litellm-budget-plugin/blob/main/docs/reference.md#"
_HELD_SECONDS = 2
"""When a client may ask again whose call was refused only because of calls in flight: about as long as one takes."""
_STORE_SECONDS = 5
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HIDDEN = {
    "held": "calls in flight leave no room in a budget that this request counts against; try again in a moment",
    "blocked": "an account that this request counts against is blocked",
}
_USED_UP = "a budget that this request counts against has no room for it"

Headers = Callable[[str], list[bytes]]
"""The values of a request's header, by its name in lower case."""
Source = str | Callable[[Any], Any]
"""Where a request says who pays: a header's name, "cookie:NAME", or a function of the scope or environ."""


class Problem(NamedTuple):
    """A response for the client. `headers` are ASCII."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The reason phrase of the status."""
        return HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Refused"


class Middleware:
    """What both middlewares are told when they are made. Raises BudgetInputError for what cannot be meant."""

    def __init__(
        self,
        app: Any,
        *,
        user: Source | None = None,
        team: Source | None = None,
        tags: Source | None = None,
        run: Source | None = None,
        status: int = 402,
        remaining_path: str | None = None,
        expose: Collection[str] = ("user",),
    ) -> None:
        sources = {"user": user, "team": team, "tags": tags, "run": run}
        self.sources = {name: _reader(name, source) for name, source in sources.items() if source is not None}
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise BudgetInputError(f"status= must be an HTTP error status, 400 to 599, got {status!r:.80}")
        if remaining_path is not None and not str(remaining_path).startswith("/"):
            raise BudgetInputError(f"remaining_path= must begin with '/', got {remaining_path!r:.80}")
        if isinstance(expose, str) or not set(expose) <= set(SCOPES):
            raise BudgetInputError(f"expose= must be a list of {', '.join(SCOPES)}, got {expose!r:.80}")
        self.app, self.status, self.remaining_path, self.expose = app, status, remaining_path, frozenset(expose)


class Request:
    """A request that is being served: who pays for it, and what its client may see. Raises BudgetInputError for a bad id."""

    def __init__(self, middleware: Middleware, found: Mapping[str, Any]) -> None:
        self.middleware = middleware
        payer = {name: _accepted(name, value) for name, value in found.items()}
        self._payer = {name: value for name, value in payer.items() if value not in (None, "", ())}
        if self._payer:
            # Ids are checked when a context is made.
            budget_context(**self._payer)
        user = self._payer.get("user")
        self.user = None if user is None else str(user)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within this context the request's user pays."""
        token = _serving.set(self)
        try:
            with budget_context(**self._payer) if self._payer else nullcontext():
                yield
        finally:
            _serving.reset(token)


_serving: ContextVar[Request | None] = ContextVar("litellm_budget_request", default=None)
_OUTSIDE = Request(Middleware(None), {})
"""What counts where no middleware serves the request."""


def serving() -> Request:
    """The request that is being served here."""
    return _serving.get() or _OUTSIDE


# Who pays.


def _reader(name: str, source: Source) -> Callable[[Any, Headers], Any]:
    many = name == "tags"
    if callable(source):
        return lambda carrier, _: source(carrier)
    cookie = source.removeprefix("cookie:") if isinstance(source, str) and source.startswith("cookie:") else None
    if not isinstance(source, str) or not _TOKEN.fullmatch(source if cookie is None else cookie):
        raise BudgetInputError(
            f"{name}= must be a header's name, 'cookie:NAME' or a function of the request, got {source!r:.80}"
        )
    if cookie is not None:
        return lambda _, headers: _one(f"the cookie {cookie}", _cookies(headers, cookie), listed=many)
    header = source.lower()
    return lambda _, headers: _one(f"the header {source}", headers(header), listed=many)


def _one(what: str, values: list[bytes], *, listed: bool) -> str | list[str] | None:
    """The id in the values of a header or cookie, the ids if it lists several. One that is sent twice leaves open which counts: servers
    and proxies choose differently, and WSGI servers join the two with a comma.
    """
    try:
        text = b",".join(values).decode()
    except UnicodeDecodeError as error:
        raise BudgetInputError(f"{what} must be UTF-8") from error
    if listed:
        return [tag for tag in (each.strip(" \t") for each in text.split(",")) if tag]
    if "," in text:
        raise BudgetInputError(f"{what} must be sent once and hold one id, got {text!r:.80}")
    return text or None


def _cookies(headers: Headers, name: str) -> list[bytes]:
    found = []
    for pair in b";".join(headers("cookie")).split(b";"):
        key, _, value = pair.strip(b" \t").partition(b"=")
        if key == name.encode():
            found.append(value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value)
    return found


def _accepted(name: str, value: Any) -> Any:
    """`value`, or TypeError if it is nothing that an id can be made of: that is the application's mistake, not the client's."""
    if name != "tags" or isinstance(value, (str, int)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise TypeError(
                f"the function for {name}= must answer text, an integer or None, got {type(value).__name__}"
            )
        return value
    if value is None:
        return None
    if not isinstance(value, Iterable):
        raise TypeError(f"the function for tags= must answer a list, text or None, got {type(value).__name__}")
    return tuple(_accepted("a tag of tags", tag) for tag in value)


# What the client is told.


def problem_of(error: BaseException) -> Problem | None:
    """What the client is told of an error that a request ended with; None where that is not ours to say."""
    found = first_in(error, (BudgetRefused, BudgetStoreUnavailable))
    if found is None:
        return None
    if found is not error:
        _logger.info("a request is answered with the refusal that its error was made of", exc_info=error)
    request = serving()
    if isinstance(found, BudgetStoreUnavailable):
        # What the message says of the store's address is for the log alone.
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
        return _document("user-missing", status, "User missing", "the request names nobody who pays for it")
    if not hasattr(found, "resets_at"):
        _logger.warning("a request is answered with %d: %s", status, found)
        return _document("call-refused", status, "Call refused", "the call was refused")
    return _exceeded(request, found)


def bad_id(error: BudgetInputError) -> Problem:
    """What the client is told of an id in its request that cannot be one."""
    return _document("bad-id", 400, "Bad id", str(error))


def nobody() -> Problem:
    """What a client is told that asks for its budgets and is nobody."""
    problem = _document("user-missing", 401, "User missing", "the request names no user")
    problem.headers["WWW-Authenticate"] = "Bearer"
    return problem


def _exceeded(request: Request, refusal: Any) -> Problem:
    exceeded: BudgetExceeded = refusal
    resets_at: datetime | None = None if exceeded.reason == "blocked" else exceeded.resets_at
    wait = None if resets_at is None else max(1, math.ceil(resets_at.timestamp() - time.time()))
    if exceeded.reason == "held":
        wait = _HELD_SECONDS if wait is None else min(_HELD_SECONDS, wait)
    if not _may_see(request, exceeded):
        detail = _HIDDEN.get(exceeded.reason, _USED_UP)
        members: dict[str, Any] = {"reason": exceeded.reason}
        return _document("budget-exceeded", request.middleware.status, "Budget exceeded", detail, members, wait)
    members = {
        "scope": exceeded.scope,
        "subject": exceeded.subject,
        "budget": exceeded.budget,
        "unit": exceeded.unit,
        "limit": exceeded.limit,
        "spent": exceeded.spent,
        "held": exceeded.held,
        "remaining": exceeded.remaining,
        "requested": exceeded.requested,
        "resets_at": None if resets_at is None else resets_at.isoformat(),
        "reason": exceeded.reason,
        "suggestion": exceeded.suggestion,
    }
    problem = _document("budget-exceeded", request.middleware.status, "Budget exceeded", str(exceeded), members, wait)
    problem.headers["Budget-Limit"] = _plain(exceeded.limit)
    problem.headers["Budget-Remaining"] = _plain(exceeded.remaining)
    problem.headers["Budget-Unit"] = exceeded.unit
    return problem


def _may_see(request: Request, exceeded: BudgetExceeded) -> bool:
    """Whether the figures of a budget are for this client. A user's are for that user: not for those who share the default user, nor for
    a request on whose behalf the application had somebody else pay.
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
    said = {"type": PROBLEM_TYPES + kind, "title": title, "status": status, "detail": detail}
    said |= {name: value for name, value in (members or {}).items() if value is not None}
    body = json.dumps(said).encode()
    headers = {"Content-Type": "application/problem+json", **_headers(body)}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Problem(status, headers, body)


def _headers(body: bytes) -> dict[str, str]:
    return {"Content-Length": str(len(body)), "Cache-Control": "no-store"}


def _plain(amount: float) -> str:
    """An amount without exponent and without zeros at its end."""
    text = f"{Decimal(repr(amount)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# The caller's own budgets.


def remaining() -> dict[str, Any]:
    """The budgets of whom pays here, as an object for JSON.

    Raises BudgetUserMissing if nobody is named, BudgetStoreError if the ledger does not answer, BudgetError without an open callback.
    """
    from litellm_budget_plugin.cli.standing import read_standings
    from litellm_budget_plugin.hooks.registration import opened_ledger

    user, given = payer_here()[:2]
    if user is None:
        raise BudgetUserMissing(
            "the budgets of nobody were asked for: name a user to the middleware, or use budget_context"
        )
    ledger = opened_ledger()
    if ledger is None:
        raise BudgetError("no BudgetCallback is open, so there are no budgets to show")
    shared = [] if given.team is None else [Subject("team", given.team)]
    shared += [Subject("tag", tag) for tag in given.tags]
    shared += [Subject("run", run) for run in given.runs]
    shared.append(Subject("project", ledger.project))
    subjects = [Subject("user", user), *(each for each in shared if each.scope in serving().middleware.expose)]
    # What this process has charged and not delivered yet is spent, too.
    ledger.worker.settle_waiting()
    budgets = []
    for standing in read_standings(ledger, subjects):
        for line in standing.lines:
            limit = None if line.left is None else line.left + line.spent + line.held
            budgets.append(
                {
                    "scope": standing.subject.scope,
                    "subject": standing.subject.id,
                    "budget": line.budget,
                    "unit": "usd" if isinstance(line.spent, Decimal) else parse_limit(line.budget).unit,
                    "limit": _number(limit),
                    "spent": _number(line.spent),
                    "held": _number(line.held),
                    "remaining": None if line.left is None else _number(max(line.left, 0)),
                    "resets_at": None if line.resets_at is None else line.resets_at.isoformat(),
                    "blocked": standing.blocked,
                }
            )
    return {"user": user, "budgets": budgets}


def _number(amount: Decimal | int | None) -> float | int | None:
    return float(amount) if isinstance(amount, Decimal) else amount


def remaining_answer() -> Problem:
    """The answer to a client that asks for its budgets. Raises BudgetStoreError, and BudgetError without an open callback."""
    try:
        body = json.dumps(remaining()).encode()
    except BudgetUserMissing:
        return nobody()
    return Problem(200, {"Content-Type": "application/json", **_headers(body)}, body)


# For frameworks that make responses of exceptions before a middleware sees them.


def error_handler(error: Exception) -> Any:
    """An error handler for Flask and Quart: `app.register_error_handler(Exception, error_handler)`.

    The problem document of a refusal, also of one that another error was made of. Other HTTP errors stay the responses that they are,
    and other errors are raised again.
    """
    problem = problem_of(error)
    if problem is not None:
        return problem.body, problem.status, problem.headers
    if hasattr(error, "get_response"):  # one of Werkzeug's HTTP errors
        return error
    raise error
