"""The parsing of a PostgreSQL URL for libpq and for the store."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.registry import masked

_ACCEPTED = (
    "accepted is postgresql://user:password@host:port/database?schema=litellm_budget&pool_size=8&prepare=yes, "
    "with libpq's own parameters beside them"
)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ANSWERS = {"yes": True, "no": False}
_OURS = ("schema", "pool_size", "prepare")
_FIXED = {"client_encoding": "UTF8", "fallback_application_name": "litellm-budget-plugin"}
_PER_HOST = ("host", "hostaddr", "port")


class Address(NamedTuple):
    """The address of a ledger. `attempts` are libpq's connection strings, one for each host; `name` contains no secret."""

    name: str
    attempts: tuple[bytes, ...]
    schema: str
    pool_size: int
    prepare: bool

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def address_from(url: str) -> Address:
    """The address that `url` names. Raises BudgetInputError if libpq or the store cannot read it."""
    shown = masked(url)
    place, _, query = url.partition("?")
    theirs, ours = [], {"schema": "litellm_budget", "pool_size": "8", "prepare": "yes"}
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key in _OURS:
            ours[key] = unquote(value)
        else:
            theirs.append(pair)
    try:
        urlsplit(place)
        parameters = {key: str(value) for key, value in conninfo_to_dict("?".join([place, "&".join(theirs)])).items()}
        attempts = _attempts(parameters)
    except (ProgrammingError, UnicodeError, ValueError) as error:
        # libpq may quote a part of the password.
        why = re.sub(r'"[^"]*"', '"…"', str(error).strip())
        raise BudgetInputError(f"{shown}: libpq cannot read this URL ({why}); {_ACCEPTED}") from None
    if not _SCHEMA.fullmatch(ours["schema"]) or ours["schema"].startswith("pg_"):
        raise BudgetInputError(
            f"{shown}: a schema's name is a small letter or _ and up to 62 small letters, digits and _, and does not begin "
            f"with pg_, got {ours['schema']!r:.80}"
        )
    if not re.fullmatch(r"[1-9][0-9]{0,2}", ours["pool_size"]):
        raise BudgetInputError(f"{shown}: pool_size must be from 1 to 999, got {ours['pool_size']!r:.80}")
    if ours["prepare"] not in _ANSWERS:
        raise BudgetInputError(f"{shown}: prepare must be yes or no, got {ours['prepare']!r:.80}")
    hosts = ",".join(_host(attempt) for attempt in attempts)
    name = f"postgresql://{hosts}/{parameters.get('dbname', '')}?schema={ours['schema']}"
    return Address(
        name,
        tuple(make_conninfo("", **{**attempt, **_FIXED}).encode() for attempt in attempts),
        ours["schema"],
        int(ours["pool_size"]),
        _ANSWERS[ours["prepare"]],
    )


def _attempts(parameters: dict[str, str]) -> list[dict[str, str]]:
    """One set of parameters for each host, so that a host that does not answer leaves time for the others."""
    lists = {key: parameters[key].split(",") for key in _PER_HOST if parameters.get(key)}
    parameters = {key: value for key, value in parameters.items() if key not in ("client_encoding", *_PER_HOST)}
    count = max((len(values) for values in lists.values()), default=1)
    if any(len(values) not in (1, count) for values in lists.values()):
        raise ValueError("as many ports as hosts are needed, or one")
    return [
        {**parameters, **{key: values[place % len(values)] for key, values in lists.items()}} for place in range(count)
    ]


def _host(attempt: dict[str, str]) -> str:
    host = attempt.get("host") or attempt.get("hostaddr") or ""
    port = attempt.get("port")
    return f"{host}:{port}" if port else host
