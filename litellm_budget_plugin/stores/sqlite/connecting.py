"""The opening of a connection to the ledger's file: settings, schema, and a fair wait for locks, which SQLite lacks."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.sql import script
from litellm_budget_plugin.stores.sqlite.failures import is_busy
from litellm_budget_plugin.stores.sqlite.files import prepare_file

T = TypeVar("T")

APPLICATION_ID = 0x4C425047
STEPS = (script(__package__, "schema.sql"),)
"""The scripts that upgrade a file from version n to n + 1. Steps are added at the end and never changed."""

PAUSE = 0.0005
"""The longest sleep (seconds) between two attempts to get the write lock; the mean is half of it."""
WAL_BYTES = 1000 * (4096 + 24)
"""`sync` copies the write-ahead log into the database when its file is longer than this."""

_OLDEST = (3, 24, 0)  # ON CONFLICT DO UPDATE
_SETTINGS = (
    "PRAGMA synchronous = NORMAL",
    # SQLite before 3.51.3 can lose commits if a commit resets the log while a checkpoint begins
    # (sqlite.org/wal.html#walresetbug). So all checkpoints are made by `checkpoint`, while no commit can come in between.
    "PRAGMA wal_autocheckpoint = 0",
    # A WAL that starts again is cut to this length, so that its size on disk tells whether it is long.
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA cache_size = -16000",
)


def pause_before_retry() -> None:
    """Sleep for a short random time. SQLite's own waiting doubles its sleeps, so that new arrivals would always overtake."""
    time.sleep(random.random() * PAUSE)  # noqa: S311 - nobody gains by guessing it


def patiently(action: Callable[[], T], deadline: float) -> T:
    """Return the result of `action`, tried again while the file is locked, until `deadline` (time.monotonic)."""
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        pause_before_retry()


def connect(path: str, deadline: float, steps: Sequence[str] = STEPS) -> sqlite3.Connection:
    """A connection to a file with the newest schema, which is created or upgraded if necessary.

    Raises BudgetStoreError if the file belongs to another application, has a later version or cannot be used; sqlite3.Error unchanged.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        raise BudgetStoreError(f"{path}: Python has SQLite {sqlite3.sqlite_version}; at least {needed} is needed")
    prepare_file(path)
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        version = patiently(lambda: _checked_version(connection, path, len(steps)), deadline)
        mode = patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()[0], deadline)
        if mode != "wal":
            raise BudgetStoreError(f"{path}: SQLite cannot use a write-ahead log here; name a file on a local disk")
        for setting in _SETTINGS:
            connection.execute(setting)
        if version < len(steps):
            patiently(lambda: _migrate(connection, path, steps), deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _checked_version(connection: sqlite3.Connection, path: str, newest: int) -> int:
    """The schema version, read in one transaction: another process may be creating the tables at this moment."""
    nested = connection.in_transaction
    if not nested:
        connection.execute("BEGIN")
    try:
        application, version, tables = (
            connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
    finally:
        if not nested and connection.in_transaction:
            connection.execute("ROLLBACK")
    if application != APPLICATION_ID and (application or version or tables):
        raise BudgetStoreError(f"{path} is another application's SQLite database; name a file of the ledger's own")
    if version > newest:
        raise BudgetStoreError(
            f"{path} was written by a later version of litellm-budget-plugin (schema {version}, this one knows {newest}); "
            "upgrade the package or name another file"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: str, steps: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have upgraded meanwhile.
        version = _checked_version(connection, path, len(steps))
        for step in steps[version:]:
            for statement in _statements(step):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(text: str) -> list[str]:
    """The statements of a script. (`executescript` would commit before the first.)"""
    found, begun = [], ""
    for part in text.split(";")[:-1]:
        begun += part + ";"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return found


def checkpoint(connection: sqlite3.Connection, path: str, deadline: float) -> None:
    """Copy the write-ahead log into the database while `connection` keeps every writer out. Flush the log before: then
    this takes only milliseconds. Raises sqlite3.OperationalError if the file stays locked until `deadline`.
    """
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
    try:
        # A connection cannot checkpoint in a transaction; a second connection can, while the first has the write lock.
        second = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            second.execute("PRAGMA checkpoint_fullfsync = ON")
            second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            second.close()
    finally:
        connection.execute("ROLLBACK")
