"""The meaning of PostgreSQL's errors for the operator of the store (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

from __future__ import annotations

from pydantic_core import PydanticSerializationError

from litellm_budget_plugin.errors import BudgetError, BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.postgres.line import Lost, Overrun, ServerError

# Texts of a server or of libpq that refuse a connection: libpq gives no SQLSTATE for these.
_REFUSALS = {
    "password authentication failed": "the user or the password is wrong",
    "no password supplied": "a password is needed; put it into the URL or a password file",
    "authentication failed": "the server does not let this user in; see its pg_hba.conf",
    "pg_hba.conf": "the server does not let this user in from here; see its pg_hba.conf",
    "does not exist": "create the database or the role, or name others",
    "permission denied for database": "this user may not connect; GRANT CONNECT ON DATABASE",
    "is not permitted to log in": "ALTER ROLE ... LOGIN lets the user in",
    "certificate": "the server's certificate or the client's is not accepted; see sslmode and sslrootcert",
    "does not support SSL": "the server has no TLS; see sslmode",
    "invalid sslmode": "see libpq's documentation of sslmode",
}
# Texts of temporary refusals, though they match a line above.
_PASSING = ("starting up", "shutting down", "recovery mode", "too many clients", "remaining connection slots")

# By SQLSTATE, or by its class (the first two characters).
_TEMPORARY = {
    "08": "the connection failed",
    "40": "the server rolled the command back in favour of another one",
    "53": "the server is short of resources",
    "57": "the server is shutting down, or has ended the command",
    "58": "the server's system failed",
    "55P03": "other connections have kept a lock of the ledger for too long",
    "25006": "the server is read-only, a standby perhaps",
    "25P03": "the server has ended a transaction that waited for this process",
}
_WAYS_OUT = {
    "42501": "this user lacks a right; see docs/postgresql.md for the rights that are needed",
    "28": "the server does not let this user in; see its pg_hba.conf",
    "3D": "create the database, or name another one",
    "3F": "the schema is missing; open the store again, as a user who may create it",
    "42P01": "a table of the ledger is missing; restore a copy or name another schema",
    "42703": "a column of the ledger is missing; a later version of this package has upgraded the schema: restart with that version",
    "53100": "the server's disk is full; make room",
    "XX": "the server reports damage; see its log",
}
_TOO_MUCH = ("22", "54000")

UNSTORABLE = (UnicodeError, PydanticSerializationError)
"""The errors of Python for half a surrogate pair."""


def is_not_applied(error: ServerError) -> bool:
    """Whether a guard of a step has failed: a failed guard casts text to a number, or inserts a key that exists. Values
    that a step cannot store count as well: a transaction will then report them.
    """
    return error.state == "23505" or is_input_error(error)


def is_input_error(error: ServerError) -> bool:
    """Whether a statement can never succeed, because of text or a number in it."""
    return error.state in _TOO_MUCH or error.state[:2] in _TOO_MUCH


def retry_helps(failure: Exception) -> bool:
    """Whether the same command, sent again at once over a new connection, may well be applied."""
    return isinstance(failure, Lost) or (
        isinstance(failure, ServerError) and (failure.state[:2] in ("40", "57", "26") or failure.state == "25P03")
    )


def explained(failure: Exception, name: str, seconds: float) -> BudgetError:
    """The error of this package for a failure at the address called `name`, with its cause and its remedy. `seconds` is
    the time allowed for an answer.
    """
    if isinstance(failure, Overrun):
        return BudgetStoreUnavailable(f"{name}: no answer within {round(seconds, 2):g} s; try again")
    if isinstance(failure, ServerError):
        return _explained(failure, name)
    text = " ".join(str(failure).split())
    if not any(sign in text for sign in _PASSING):
        for sign, way_out in _REFUSALS.items():
            if sign in text:
                return BudgetStoreError(f"{name}: {way_out} ({text})")
    return BudgetStoreUnavailable(f"{name}: {text or 'the connection was lost'}; try again")


def _explained(error: ServerError, name: str) -> BudgetError:
    state, kind = error.state, error.state[:2]
    if is_input_error(error):
        return unstorable(error, name)
    if way_out := _WAYS_OUT.get(state) or _WAYS_OUT.get(kind):
        return BudgetStoreError(f"{name}: {way_out} ({error})")
    if what := _TEMPORARY.get(state) or _TEMPORARY.get(kind):
        return BudgetStoreUnavailable(f"{name}: {what} ({error}); try again")
    return BudgetStoreError(f"{name}: {error} (SQLSTATE {state})")


def unstorable(error: Exception, name: str) -> BudgetInputError:
    """The error for a command that can never be applied."""
    return BudgetInputError(f"{name}: the command holds text or a number that cannot be stored: {error}")
