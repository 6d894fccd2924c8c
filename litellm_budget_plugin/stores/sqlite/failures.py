"""The meaning of SQLite's errors for the operator of the store."""

from __future__ import annotations

import sqlite3

from pydantic_core import PydanticSerializationError

from litellm_budget_plugin.errors import BudgetError, BudgetInputError, BudgetStoreError, BudgetStoreUnavailable

UNSTORABLE = (UnicodeError, OverflowError, PydanticSerializationError)
"""The errors of Python for half a surrogate pair and for integers of more than 64 bits."""

# Distinguished by SQLite's texts, which have not changed since the codes exist: Python 3.10 does not give the codes.
_BUSY = ("is locked", "locking protocol")
_WAYS_OUT = {
    "not a database": "it is not a SQLite database; move it away or name another file",
    "malformed": 'it is damaged; stop all processes and restore a copy, or save what can be read with sqlite3 and ".recover"',
    "readonly": "it, its directory or its -wal and -shm files cannot be written; give this user write access",
    "unable to open": "it, its directory or its -wal and -shm files cannot be opened; give this user read and write access",
    "is full": "its disk (or quota) is full; make room, nothing was changed",
    "disk i/o error": "its disk failed or the file size limit was reached; nothing was changed",
    "no such table": "a table of the ledger is missing; restore a copy or name another file",
    "no such column": "a column of the ledger is missing; restore a copy or name another file",
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process's lock caused the error, so that trying again can help."""
    return any(text in str(error) for text in _BUSY)


def explained(error: Exception, path: str, seconds: float) -> BudgetError:
    """The error of this package for a failure of the file, with its cause and its remedy. `seconds` is the time spent waiting for locks."""
    if isinstance(error, UNSTORABLE):
        return BudgetInputError(f"the command holds text or a number that cannot be stored: {error}")
    if isinstance(error, sqlite3.Error) and is_busy(error):
        return BudgetStoreUnavailable(f"{path}: other processes kept it locked for {seconds:g} s; try again")
    text = str(error).lower()
    for sign, way_out in _WAYS_OUT.items():
        if sign in text:
            return BudgetStoreError(f"{path}: {way_out} ({error})")
    return BudgetStoreError(f"{path}: {error}")
