"""The payer of a request, according to the options of a middleware."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from litellm_budget_plugin.core.accounts import SCOPES
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.hooks.context import budget_context

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The pattern of a header's or cookie's name."""

Headers = Callable[[str], list[bytes]]
"""The values of a request's header, by its name in lower case."""
Source = str | Callable[[Any], Any]
"""The part of a request that names the payer: a header's name, "cookie:NAME", or a function of the scope or environ."""


class Middleware:
    """The options of both middlewares. Raises BudgetInputError for invalid ones."""

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
    """A request that is being served: its payer, and what its client may see. Raises BudgetInputError for an invalid
    id.
    """

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
        """Have the request's user pay within this context."""
        before = _serving.get()
        _serving.set(self)
        try:
            with budget_context(**self._payer) if self._payer else nullcontext():
                yield
        finally:
            # The garbage collector ends a response that was dropped without closing it, in any context. So a token
            # cannot be reset.
            if _serving.get() is self:
                _serving.set(before)


_serving: ContextVar[Request | None] = ContextVar("litellm_budget_request", default=None)
_OUTSIDE = Request(Middleware(None), {})
"""The request that stands for code outside of any middleware."""


def serving() -> Request:
    """Return the request that is being served in this context."""
    return _serving.get() or _OUTSIDE


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
    """Return the id in the values of a header or cookie, or the ids if it lists several. If one is sent twice, it is
    unclear which one counts: servers and proxies choose differently, and WSGI servers join the two with a comma.
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
    """Return `value`. Raises TypeError if no id can be made of it, because that is the application's mistake, not the
    client's.
    """
    if name != "tags" or isinstance(value, (str, int)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise TypeError(
                f"the function for {name}= must return text, an integer or None, got {type(value).__name__}"
            )
        return value
    if value is None:
        return None
    if not isinstance(value, Iterable):
        raise TypeError(f"the function for tags= must return a list, text or None, got {type(value).__name__}")
    return tuple(_accepted("a tag of tags", tag) for tag in value)
