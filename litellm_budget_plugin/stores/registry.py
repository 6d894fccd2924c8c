"""The opening of a store by its URL."""

from __future__ import annotations

import difflib
import math
import re
from importlib import import_module

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.protocol import Store

_REDIS = "net.opening:open_redis"
ENGINES = {
    "memory": "memory:open_memory",
    "sqlite": "sqlite.store:open_sqlite",
    **dict.fromkeys(("postgresql", "postgres"), "net.opening:open_postgres"),
    **dict.fromkeys(("redis", "rediss", "redis+unix"), _REDIS),
    **dict.fromkeys(("redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"), _REDIS),
    **dict.fromkeys(("http", "https"), "http.opening:open_http"),
}
"""The function that opens each scheme's store; imported on first use."""

_WITHOUT_SECRETS = ("memory", "sqlite")
_SECRET = re.compile("pass|secret|token|key|cert|header", re.IGNORECASE)
_ACCEPTED = (
    "memory://, sqlite:///relative.db, sqlite:////absolute.db, redis://host:6379/0 (also rediss://, redis+unix://, "
    "redis+cluster:// and redis+sentinel://), postgresql://user:password@host/database and https://:key@host/prefix"
)


def open_store(url: str, *, test_clock: bool = False, timeout: float = 2.0) -> Store:
    """The store at `url`, checked and ready.

    `memory://` is a new ledger at each opening. `sqlite:///` takes a path, absolute or relative to the current directory at this
    moment, and decodes nothing in it. `timeout` bounds every command, in seconds. With `test_clock`, commands carry their own time.

    Raises BudgetInputError for a URL that names no store, and BudgetStoreError if the store cannot be used.
    """
    if not isinstance(timeout, (int, float)) or not math.isfinite(timeout) or timeout < 0:
        raise BudgetInputError(f"a store's timeout must be a number of seconds, 0 or more, got {timeout!r}")
    if not isinstance(url, str) or "://" not in url:
        shown = masked(url) if isinstance(url, str) else type(url).__name__
        raise BudgetInputError(f"{shown!r} is not the URL of a store; accepted are {_ACCEPTED}")
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in ENGINES:
        raise BudgetInputError(f"{masked(url)!r}: {_why_not(scheme)}; accepted are {_ACCEPTED}")
    module, _, function = ENGINES[scheme].partition(":")
    opener = getattr(import_module(f"{__package__}.{module}"), function)
    try:
        store: Store = opener(scheme, rest, test_clock=test_clock, timeout=timeout)
    except ImportError as error:
        extra = function.removeprefix("open_")
        raise BudgetInputError(
            f"{scheme}:// needs its client ({error}): pip install 'litellm-budget-plugin[{extra}]'"
        ) from error
    return store


_SCHEMAS = {
    "sqlite": "sqlite.connecting:STEPS",
    **dict.fromkeys(("postgresql", "postgres"), "postgres.migrating:STEPS"),
    **{scheme: "redis.engine:VERSION" for scheme, opener in ENGINES.items() if opener == _REDIS},
    **dict.fromkeys(("http", "https"), "http.store:PROTOCOL"),
}


def schema_version(url: str) -> int | None:
    """The version of the tables or keys that this package keeps in the store at `url`, or of the protocol that it
    speaks to an endpoint; None if there is none. An opened store has this version: an older one was upgraded.
    """
    found = _SCHEMAS.get(url.partition("://")[0].lower())
    if found is None:
        return None
    module, _, name = found.partition(":")
    known: int | tuple[object, ...] = getattr(import_module(f"{__package__}.{module}"), name)
    return known if isinstance(known, int) else len(known)


def _why_not(scheme: str) -> str:
    close = difflib.get_close_matches(scheme.split("+", maxsplit=1)[0], ENGINES, n=1)
    return f"no store is called {scheme}://" + (f" (did you mean {close[0]}://?)" if close else "")


def place_of(url: str) -> str:
    """The identity of the ledger at `url`, which stays the same when a password changes: `url` without user, password
    and the query values that contain secrets. Not fit for messages and logs: see `masked`.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    if scheme.lower() in _WITHOUT_SECRETS:
        return url
    place, question, query = rest.rpartition("@")[2].partition("?")
    told = sorted(part for part in query.split("&") if not _SECRET.search(part.partition("=")[0]))
    return f"{scheme.lower()}{separator}{place}{question}{'&'.join(told)}"


def masked(url: str) -> str:
    """`url` fit for messages and logs: without user, password and the values of its query.

    It hides too much rather than too little, because some passwords are not encoded.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    if scheme.lower() in _WITHOUT_SECRETS:
        return url
    secret, at, place = rest.rpartition("@")
    place, question, query = place.partition("?")
    hidden = "***" if secret else ""
    return f"{scheme}{separator}{hidden}{at}{place}{question}" + re.sub(r"=[^&#]*", "=***", query)
