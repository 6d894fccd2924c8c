"""Upgrading a file to the newest schema: all steps or none, and only once."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.connecting import STEPS, connect
from tests.stores.desk import calls_of, charge_of

NEXT = """
-- a comment; with a semicolon
CREATE TABLE notes (text TEXT NOT NULL DEFAULT 'a;b');
ALTER TABLE usage ADD COLUMN searches INTEGER NOT NULL DEFAULT 0;
"""
BROKEN = "CREATE TABLE notes (text); INSERT INTO missing VALUES (1);"


def soon() -> float:
    return time.monotonic() + 30.0


def version_of(path: Path) -> tuple[int, list[str]]:
    """The schema version and the names of the tables."""
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    connection.close()
    return version, tables


def ledger(path: Path) -> None:
    """A file of this version with one charge."""
    store = open_store(f"sqlite:///{path}")
    store.execute(charge_of("h"))
    store.close()


def test_a_step_is_applied_in_place(database: Path) -> None:
    ledger(database)
    connection = connect(str(database), soon(), (*STEPS, NEXT))
    assert connection.execute("SELECT calls, searches FROM usage").fetchall() == [(1, 0)]
    connection.close()
    assert version_of(database) == (2, ["accounts", "holds", "notes", "usage"])


def test_a_failing_step_changes_nothing(database: Path, opened: Callable[..., Store]) -> None:
    """Not even the steps before it are kept, and the version that wrote the file can still use it."""
    ledger(database)
    with pytest.raises(sqlite3.OperationalError, match="no such table: missing"):
        connect(str(database), soon(), (*STEPS, NEXT.replace("notes", "others"), BROKEN))
    assert version_of(database) == (1, ["accounts", "holds", "usage"])
    assert calls_of(opened(f"sqlite:///{database}")) == 1


def test_a_file_of_a_later_version(database: Path) -> None:
    ledger(database)
    connect(str(database), soon(), (*STEPS, NEXT)).close()
    with pytest.raises(BudgetStoreError, match=f"{database} was written by a later version .* upgrade"):
        open_store(f"sqlite:///{database}")


def test_many_at_once(database: Path) -> None:
    """Several processes try to apply the step, and one does."""
    ledger(database)
    failures: list[Exception] = []

    def upgrade() -> None:
        try:
            connect(str(database), soon(), (*STEPS, NEXT)).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert version_of(database)[0] == 2


def test_an_empty_file_is_a_new_ledger(database: Path) -> None:
    """A process that dies right after creating the file leaves it empty."""
    database.touch()
    ledger(database)
    assert version_of(database) == (1, ["accounts", "holds", "usage"])
