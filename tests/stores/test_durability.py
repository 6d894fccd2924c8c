"""When data reaches the disk: the write-ahead log is flushed once for many commits, and does not grow forever."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from litellm_budget_plugin.core.accounts import Hold, Subject
from litellm_budget_plugin.core.commands import (
    Change,
    DropBudget,
    PutBudget,
    Refund,
    Release,
    Renew,
    Reserve,
    Reset,
    SetLimits,
    Settle,
    TopUp,
)
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.stores import disk
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.rows import Rows
from litellm_budget_plugin.stores.sqlite import connecting, files
from litellm_budget_plugin.stores.sqlite import store as sqlite_store
from tests.stores.desk import calls_of, charge_of

Opener = Callable[..., Store]
ALICE = Subject("user", "alice")


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were flushed, in order, directories included."""
    names: list[str] = []

    def note(function: Callable[[str], int | None]) -> Callable[[str], int | None]:
        def noted(path: str) -> int | None:
            names.append(Path(path).name)
            return function(path)

        return noted

    monkeypatch.setattr(sqlite_store, "sync_file", note(files.sync_file))
    monkeypatch.setattr(sqlite_store, "sync_directory", note(disk.sync_directory))
    return names


def test_a_sync_serves_all_commits_before(database: Path, opened: Opener, flushed: list[str]) -> None:
    """The first sync after the log was created also flushes its name. Without commits there is nothing to flush."""
    store = opened(f"sqlite:///{database}")
    store.sync()
    assert flushed == []
    for number in range(10):
        store.execute(charge_of(f"h{number}"))
    assert flushed == []
    store.sync()
    store.sync()
    assert flushed == ["ledger.db-wal", database.parent.name]
    store.execute(charge_of("h"))
    store.sync()
    assert flushed == ["ledger.db-wal", database.parent.name, "ledger.db-wal"]


def test_budget_changes_are_flushed_before_they_are_acknowledged(
    database: Path, opened: Opener, flushed: list[str]
) -> None:
    """Also a repeated change: the first may have been interrupted between its commit and its flush."""
    store = opened(f"sqlite:///{database}")
    changes: tuple[Change, ...] = (
        PutBudget("c1", "p", ALICE, limit=5),
        Reset("c2", "p", ALICE),
        DropBudget("c3", "p", ALICE),
        SetLimits("c4", "p", ALICE, (Limit(5),)),
        TopUp("invoice-1", "p", ALICE, 5),
        Refund("invoice-1", "p"),
    )
    of_calls = {Reserve, Settle, Release, Renew}
    assert {type(change) for change in changes} == set(get_args(Change)) - of_calls
    for change in (*changes, changes[0]):
        flushed.clear()
        store.execute(change)
        assert "ledger.db-wal" in flushed


def calls_without_log(database: Path, copy: Path) -> int:
    """The calls counted in the database itself, without its write-ahead log."""
    shutil.copy(database, copy)
    connection = sqlite3.connect(copy)
    (calls,) = connection.execute("SELECT coalesce(sum(calls), 0) FROM usage").fetchone()
    connection.close()
    return int(calls)


def test_rows_that_are_loaded_are_flushed_before_that_is_acknowledged(
    database: Path, opened: Opener, flushed: list[str]
) -> None:
    store = opened(f"sqlite:///{database}")
    store.load("p", Rows(holds=(Hold("h", "settled", 1),)))
    assert flushed == ["ledger.db-wal", database.parent.name]
    assert store.projects() == ["p"] and store.export("p", "", 1).rows == Rows()
    assert len(flushed) == 2


def test_a_sync_shortens_a_long_log(
    database: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The log is copied into the database, and the next commit starts it again."""
    monkeypatch.setattr(connecting, "WAL_BYTES", 100_000)
    monkeypatch.setattr(connecting, "_SETTINGS", (*connecting._SETTINGS, "PRAGMA journal_size_limit = 100000"))
    store = opened(f"sqlite:///{database}")
    log = Path(f"{database}-wal")
    for number in range(100):
        store.execute(charge_of(f"h{number}"))
    assert log.stat().st_size > 200_000
    # The copy is in another directory, so that closing it releases no locks of this process.
    store.sync()
    store.execute(charge_of("h"))
    assert log.stat().st_size <= 100_000
    store.close()
    assert calls_without_log(database, tmp_path / "copy.db") == 101


def test_a_program_that_never_syncs(database: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commits check the log from time to time."""
    monkeypatch.setattr(sqlite_store, "_MEASURE_EVERY", 20)
    monkeypatch.setattr(connecting, "WAL_BYTES", 50_000)
    monkeypatch.setattr(connecting, "_SETTINGS", (*connecting._SETTINGS, "PRAGMA journal_size_limit = 50000"))
    store = opened(f"sqlite:///{database}")
    for number in range(400):
        store.execute(charge_of(f"h{number}"))
    assert Path(f"{database}-wal").stat().st_size < 600_000
    assert calls_of(store) == 400


def test_a_log_that_cannot_be_shortened_now(
    database: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program is writing, committed data is flushed, and the next sync tries again."""
    monkeypatch.setattr(connecting, "WAL_BYTES", 0)
    store = opened(f"sqlite:///{database}", timeout=0.02)
    store.execute(charge_of("h"))
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING, logger="litellm_budget_plugin"):
        store.sync()
    assert "could not be shortened" in caplog.text
    other.close()
    assert calls_of(store) == 1


def test_a_checkpoint_keeps_writers_out(database: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite before 3.51.3 loses commits if one resets the log while a checkpoint begins."""
    monkeypatch.setattr(connecting, "WAL_BYTES", 0)
    store = opened(f"sqlite:///{database}")
    store.execute(charge_of("h"))
    other = sqlite3.connect(database, timeout=0, isolation_level=None)
    tried: list[str] = []
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                tried.append(sql)
            return super().execute(sql, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Watched, **options))
    store.sync()
    assert tried
    assert other.execute("PRAGMA wal_autocheckpoint").fetchone() == (1000,)
    connection = store._connection  # type: ignore[attr-defined]
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    other.close()
