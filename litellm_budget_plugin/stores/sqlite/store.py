"""The SQLite store: one connection for each process, `BEGIN IMMEDIATE` around each command, syncs outside the lock."""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from litellm_budget_plugin.core.commands import (
    Command,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Refund,
    Reply,
    Reset,
    SetLimits,
    TopUp,
)
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.clock import clock
from litellm_budget_plugin.stores.disk import sync_directory
from litellm_budget_plugin.stores.fork_safe_lock import ForkSafeLock, watch_forks
from litellm_budget_plugin.stores.protocol import Outcome, one_by_one
from litellm_budget_plugin.stores.rows import Page, Rows, load
from litellm_budget_plugin.stores.sqlite import connecting
from litellm_budget_plugin.stores.sqlite.book import ReadOnly, SqliteBook
from litellm_budget_plugin.stores.sqlite.connecting import checkpoint, connect, pause_before_retry
from litellm_budget_plugin.stores.sqlite.failures import UNSTORABLE, explained, is_busy
from litellm_budget_plugin.stores.sqlite.files import file_size, identity, path_from, sync_file

T = TypeVar("T")

_log = logging.getLogger("litellm_budget_plugin")

_READS = (Read, ReadUsage)
_SYNCED_AT_ONCE = (PutBudget, DropBudget, Reset, SetLimits, TopUp, Refund)
_LOOK_EVERY = 1.0
"""The interval (seconds) at which a command checks that its file is still in place."""
_SYNC_WAIT = 60.0
"""The time (seconds) that a sync waits for another one to end."""
_TOGETHER = 64
"""The most commands in one transaction: others wait for it."""
_MEASURE_EVERY = 500
"""The number of commits after which the length of the write-ahead log is checked."""

_inherited: dict[tuple[int, int] | None, sqlite3.Connection] = {}
"""Connections that a fork copied into this process, by the identity of their files: never used and never closed."""


class SqliteStore:
    """A ledger in one file, shared by the threads and processes of one machine.

    The connection is closed before a fork, and parent and child open their own after it: SQLite keeps its locks in the
    process's memory, so a child with an inherited connection would believe that it holds locks that it does not hold.
    """

    remote = False

    def __init__(self, path: str, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._path = path
        self._now = clock(test_clock)
        self._timeout = timeout
        self._guard, self._sync_guard = ForkSafeLock(), ForkSafeLock()
        self._connection: sqlite3.Connection | None = None
        self._book: SqliteBook | None = None
        self._pid = os.getpid()
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._look_at = 0.0
        self._commits, self._synced = 0, 0
        self._measure_at = _MEASURE_EVERY
        self._name_synced = False
        self._closed = False
        self._check_file(time.monotonic() + timeout)
        watch_forks(self)
        _log.info("the budget ledger is %s", path)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        return self._serve(
            lambda book: apply(book, command, self._now(command)),
            seconds,
            writes=not isinstance(command, _READS),
            synced=isinstance(command, _SYNCED_AT_ONCE),
        )

    def _serve(self, work: Callable[[SqliteBook], T], seconds: float, *, writes: bool, synced: bool = False) -> T:
        try:
            # Threads that wait for the connection are served in turn: `seconds` limits only the wait for a file that
            # other processes keep busy.
            done: T = self._guard.run(self._path, self._timeout, self._transact, work, seconds, writes)
            if synced:
                self._sync_guard.run(self._path, _SYNC_WAIT, self._sync_wal)
        except (sqlite3.Error, OSError, *UNSTORABLE) as error:
            raise explained(error, self._path, seconds) from error
        return done

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each: several together in one transaction, which costs less."""
        outcomes: list[Outcome] = []
        for first in range(0, len(commands), _TOGETHER):
            outcomes += self._execute_together(commands[first : first + _TOGETHER], timeout)
        return outcomes

    def _execute_together(self, commands: Sequence[Command], timeout: float | None) -> list[Outcome]:
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        try:
            return self._serve(
                lambda book: [self._outcome(book, command) for command in commands],
                seconds,
                writes=not all(isinstance(command, _READS) for command in commands),
                synced=any(isinstance(command, _SYNCED_AT_ONCE) for command in commands),
            )
        except BudgetInputError:
            # One of them cannot be stored, so none was. It must not keep the others from being applied.
            return one_by_one(self, commands, timeout)

    def _outcome(self, book: SqliteBook, command: Command) -> Outcome:
        try:
            return apply(book, command, self._now(command))
        except BudgetInputError as error:
            return error

    def projects(self) -> list[str]:
        """Every project that has a row, sorted."""
        return self._serve(SqliteBook.projects, self._timeout, writes=False)

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project, in the order of their keys."""
        return self._serve(lambda book: book.export(project, after, most), self._timeout, writes=False)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys."""
        self._serve(lambda book: load(book, project, rows), self._timeout, writes=True, synced=True)

    def _transact(self, work: Callable[[SqliteBook], T], seconds: float, writes: bool) -> T:
        deadline = time.monotonic() + seconds
        connection, book = self._opened(deadline)
        run = connection.execute
        if connection.in_transaction:  # a second interrupt arrived during the ROLLBACK below
            run("ROLLBACK")
        book.writable = writes
        while True:
            try:
                run("BEGIN IMMEDIATE" if book.writable else "BEGIN")
                done = work(book)
                run("COMMIT")
                self._commits += book.writable
                break
            except ReadOnly:
                book.writable = True
                continue
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
            finally:
                if connection.in_transaction:
                    run("ROLLBACK")
            pause_before_retry()
        if self._commits >= self._measure_at:
            self._measure_log()
        return done

    def _measure_log(self) -> None:
        """Shorten a long log, for programs that never call `sync`, so that it does not grow forever."""
        self._measure_at = self._commits + _MEASURE_EVERY
        if file_size(self._path + "-wal") > 4 * connecting.WAL_BYTES:
            self._checkpoint(0.0, logging.DEBUG)

    def _check_file(self, deadline: float) -> None:
        """Create or check the file. The connection is not kept: a program that opens a store and forks its workers
        before any command has no connection for them to inherit, however it forks.
        """
        try:
            connect(self._path, deadline).close()
        except (sqlite3.Error, OSError) as error:
            raise explained(error, self._path, self._timeout) from error
        self._identity = identity(self._path)

    def _opened(self, deadline: float) -> tuple[sqlite3.Connection, SqliteBook]:
        if self._pid != os.getpid():
            self._keep_inherited()
        if self._connection is not None and self._book is not None:
            if time.monotonic() >= self._look_at:
                self._look()
            return self._connection, self._book
        if self._closed:
            raise BudgetStoreError(f"{self._path}: this store was closed")
        self._look()
        if self._identity in _inherited:
            raise BudgetStoreError(
                f"{self._path}: this process was forked with the file open, by a program that does not run Python's "
                "fork hooks or in the middle of a command; let workers open their own store (uWSGI: lazy-apps = true)"
            )
        connection = connect(self._path, deadline)
        self._connection, self._book = connection, SqliteBook(connection)
        self._log_identity = identity(self._path + "-wal")
        self._name_synced = False
        return connection, self._book

    def _look(self) -> None:
        """Raise BudgetStoreError if the file was deleted or replaced: no other process would see the old one again, and
        the new one may be empty.
        """
        self._look_at = time.monotonic() + _LOOK_EVERY
        log = self._log_identity if self._connection is None else identity(self._path + "-wal")
        if (identity(self._path), log) != (self._identity, self._log_identity):
            raise BudgetStoreError(
                f"{self._path} or its -wal file was deleted or replaced while it was in use; restart every process that "
                "uses it, to open the present file"
            )

    def sync(self) -> None:
        """Flush the write-ahead log, once for all earlier commits, without delaying commands; shorten it if it is long."""
        try:
            self._sync_guard.run(self._path, _SYNC_WAIT, self._sync)
        except (sqlite3.Error, OSError) as error:
            raise explained(error, self._path, _SYNC_WAIT) from error

    def _sync(self) -> None:
        if self._closed:
            return
        # Under the lock: not while a command opens the file, or a fork closes it.
        self._guard.run(self._path, self._timeout, self._look)
        if self._synced != self._commits and self._sync_wal() > connecting.WAL_BYTES:
            self._guard.run(self._path, self._timeout, self._checkpoint, self._timeout)

    def _checkpoint(self, seconds: float, level: int = logging.WARNING) -> None:
        if self._connection is None:
            return
        try:
            checkpoint(self._connection, self._path, time.monotonic() + seconds)
        except sqlite3.OperationalError as error:
            # The next checkpoint will shorten it, or another process has. Committed data is safe in the log.
            _log.log(level, "%s: its write-ahead log could not be shortened: %s", self._path, error)

    def _sync_wal(self) -> int:
        commits = self._commits
        size = sync_file(self._path + "-wal")
        if not self._name_synced:
            sync_directory(os.path.dirname(self._path))
            self._name_synced = True
        self._synced = commits
        return size

    def close(self) -> None:
        """Flush committed data and close the file."""
        try:
            self.sync()
        finally:
            self._guard.run(self._path, self._timeout, self._disconnect, True)

    def _disconnect(self, for_good: bool) -> None:
        connection, self._connection, self._book = self._connection, None, None
        self._closed = self._closed or for_good
        if connection is not None and self._pid == os.getpid():
            connection.close()

    def before_fork(self) -> None:
        """Wait for commands and syncs to end, and close the connection."""
        if all([self._sync_guard.before_fork(), self._guard.before_fork()]):
            self._disconnect(False)

    def after_fork(self, in_child: bool) -> None:
        """Admit commands and syncs again; the next command opens a connection."""
        for guard in (self._guard, self._sync_guard):
            guard.after_fork(in_child)
        if in_child:
            self._keep_inherited()

    def _keep_inherited(self) -> None:
        self._pid = os.getpid()
        if self._connection is not None:
            _inherited[self._identity] = self._connection
            # Not even the end of the interpreter may close it: that would act on the parent's locks.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = self._book = None


def open_sqlite(_: str, rest: str, *, test_clock: bool, timeout: float) -> SqliteStore:
    """The store of the URL `sqlite://rest`."""
    return SqliteStore(path_from(rest), test_clock=test_clock, timeout=timeout)
