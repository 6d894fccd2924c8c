"""Rows in PostgreSQL, and a small pool of connections."""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic_core import from_json

from litellm_budget_plugin.core.accounts import Hold, Subject, Usage, UsageKey
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.fork_safe_lock import watch_forks
from litellm_budget_plugin.stores.net.engine import Add, Seen, View
from litellm_budget_plugin.stores.net.places import NoPlace
from litellm_budget_plugin.stores.net.transaction import Transaction, new_version
from litellm_budget_plugin.stores.postgres.adding import statements_of
from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.failures import (
    UNSTORABLE,
    explained,
    is_not_applied,
    retry_helps,
    unstorable,
)
from litellm_budget_plugin.stores.postgres.line import Answer, Line, Lost, Overrun, ServerError, Statement, connect
from litellm_budget_plugin.stores.postgres.migrating import bring_up_to_date
from litellm_budget_plugin.stores.postgres.pool import Pool
from litellm_budget_plugin.stores.postgres.rows import (  # fmt: skip
    account_of,
    hold_of,
    key_row,
    owner_of,
    page_of,
    place_of,
    stored_id,
    tables_of,
    usage_of,
)
from litellm_budget_plugin.stores.postgres.statements import Statements
from litellm_budget_plugin.stores.rows import Page, Rows

_log = logging.getLogger("litellm_budget_plugin")

T = TypeVar("T")

_TOGETHER = 64
"""The most steps in one transaction: others of the project wait for it."""
_AT_ONCE = 1000
"""The most rows that one step of upkeep changes."""
_TROUBLE = (Lost, Overrun, ServerError)
_LASTING = frozenset(("settled", "released", "done", "alias"))
"""The states of marks that must be on the disk before a caller learns of them."""


class PostgresEngine:
    """A ledger in one schema of a PostgreSQL database. Implements `stores.net.engine.Engine`.

    A child after a fork opens its own connections. It closes inherited ones without sending anything on them.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.name = address.name
        self._address = address
        self._closed = False
        self._sql = Statements(address.schema)
        self._flush = self._sql.of("flush")
        self._by_index = self._sql.of("by_index")
        self._check_schema(timeout)
        self._pool = Pool(address)
        watch_forks(self)
        _log.info("the budget ledger is %s", address.name)

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        """Apply steps in their order, up to the first that cannot be applied; returns how many were."""
        applied = 0
        while applied < len(adds):
            some = adds[applied : applied + _TOGETHER]
            done = self._run(partial(self._add, some, deadline), deadline)
            applied += done
            if done < len(some):
                break
        return applied

    def _add(self, adds: Sequence[Add], deadline: float, line: Line) -> int:
        """The number of these steps, from the first on, that were applied in one transaction."""
        while adds:
            projects = sorted({add.project for add in adds}) if len(adds) > 1 else [adds[0].project]
            batch = [self._sql.lock("beside" if len(adds) == 1 else "alone", project, deadline) for project in projects]
            # The place in the batch where each step's statements begin.
            begins = []
            lasting = False
            try:
                for add in adds:
                    begins.append(len(batch))
                    batch += statements_of(add, self._sql)
                    lasting = lasting or any(hold.state in _LASTING for hold, _ in add.holds)
                answers, *flushed = line.ask([batch, [self._flush]] if lasting else [batch], deadline)
            except UNSTORABLE:
                # The command that made this step is then executed by itself, and its error says why.
                adds = adds[: len(adds) // 2]
                continue
            if not isinstance(answers, ServerError):
                _raise_any(flushed)
                return len(adds)
            if not is_not_applied(answers):
                raise answers
            # The failed step was undone together with those before it, which are now applied without it.
            adds = adds[: max(0, bisect(begins, answers.place) - 1)]
        return 0

    def view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        """Rows of a project as they were at one moment."""

        def read(line: Line) -> View:
            batch = [self._by_index, self._sql.view(project, subjects, holds, now)]
            return _view_of(_list(_only(line, batch, deadline)), subjects, holds)

        return self._run(read, deadline)

    def transact(
        self,
        project: str,
        subjects: Sequence[Subject],
        holds: Sequence[str],
        now: int | None,
        work: Callable[[Transaction], T],
        deadline: float,
    ) -> T:
        """Return the result of `work`, after writing the transaction's `changes`."""

        def run(line: Line) -> T:
            begin = [
                self._sql.of("begin"),
                self._sql.lock("alone", project, deadline),
                self._sql.view(project, subjects, holds, now),
            ]
            view = _view_of(_list(_only(line, begin, deadline)), subjects, holds)
            reader = _Reader(self._sql, line, project, deadline)
            transaction = Transaction(view, reader)
            try:
                result = work(transaction)
                writes = self._writes(project, transaction)
            except _TROUBLE:
                raise
            except Exception:
                _only(line, [("ROLLBACK", ())], deadline)
                raise
            # The reply may depend on a mark that was committed a moment ago and is not on the disk yet.
            marks = [*transaction.changes.holds.values(), *view.holds.values(), *reader.read]
            batches = [[*writes, ("COMMIT" if writes else "ROLLBACK", ())]]
            if any(mark is not None and mark.state in _LASTING for mark in marks):
                batches.append([self._flush])
            _raise_any(line.ask(batches, deadline))
            return result

        return self._run(run, deadline)

    def _writes(self, project: str, transaction: Transaction) -> list[Statement]:
        changes = transaction.changes
        left = tuple(account for account in changes.accounts.values() if account is not None)
        tables = tables_of(Rows(left, tuple(changes.holds.values()), tuple(changes.usage.items())))
        tables["add_to_totals"] = tables.pop("usage")
        gone = [key_row(ref) for ref, account in changes.accounts.items() if account is None]
        return self._sql.on_rows(project, {"delete": gone, **tables, "versions": _versions(transaction.versions())})

    def page(
        self, project: str, scope: str, after: str, most: int, now: int | None, deadline: float
    ) -> tuple[View, list[str]]:
        """Up to `most` ids in a scope that have accounts and follow `after`, in order, with their rows."""
        answer = self._answer(self._sql.of("page", project, now, scope, after, most), deadline)
        *parts, ids = _list(answer)
        return _view_of(parts, (), ()), ids or []

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int, deadline: float
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""
        if subject is None:
            statement = self._sql.of("usage_of_scope", project, scope, since, until)
        else:
            statement = self._sql.of(
                "usage_of_subject", project, scope, since, until, subject, owner_of(scope, subject)
            )
        return [usage_of(row) for row in _list(self._answer(statement, deadline))]

    def forget(self, project: str, before: int, deadline: float) -> int:
        """Delete marks that were closed before a time; returns how many."""
        return self._in_steps([], self._sql.of("forget", project, before, _AT_ONCE), deadline)

    def fold(self, project: str, before_day: int, deadline: float) -> int:
        """Add the totals of days from 1 to before `before_day` to day 0; return how many rows were folded."""
        lock = self._sql.lock("alone", project, deadline)
        return self._in_steps([lock], self._sql.of("fold", project, before_day, _AT_ONCE), deadline)

    def _in_steps(self, before: list[Statement], statement: Statement, deadline: float) -> int:
        done = rows = self._count([*before, statement], deadline)
        while rows == _AT_ONCE:
            rows = self._count([*before, statement], deadline)
            done += rows
        return done

    def _count(self, batch: Sequence[Statement], deadline: float) -> int:
        return self._run(lambda line: int(_only(line, batch, deadline) or 0), deadline)

    def projects(self, deadline: float) -> list[str]:
        """Every project that has a row, sorted."""
        return _list(self._answer(self._sql.of("projects"), deadline))

    def export(self, project: str, after: str, most: int, deadline: float) -> Page:
        """Raw rows in a stable order, up to `most` of one kind; "" starts."""
        part, key = place_of(after)
        statement = self._sql.of(f"export {part}" if key else f"begin {part}", project, most, *key)
        return page_of(part, _list(self._answer(statement, deadline)), most)

    def load(self, project: str, rows: Rows, deadline: float) -> None:
        """Put these rows unchanged in place of rows with the same keys, in one step."""
        subjects = {Subject(account.ref.scope, account.ref.subject) for account in rows.accounts}
        versions = _versions({subject: new_version() for subject in subjects})

        def put(line: Line) -> None:
            lock = self._sql.lock("alone", project, deadline)
            statements = self._sql.on_rows(project, {**tables_of(rows), "versions": versions})
            _raise_any(line.ask([[lock, *statements], [self._flush]], deadline))

        self._run(put, deadline)

    def _answer(self, statement: Statement, deadline: float) -> Answer:
        return self._run(lambda line: _only(line, [self._by_index, statement], deadline), deadline)

    def _run(self, what: Callable[[Line], T], deadline: float) -> T:
        """Return the result of `what` for a connection. It may be called again, with a new connection: its writes are
        identified by ids, and its reads are repeated.
        """
        seconds = deadline - time.monotonic()
        try:
            try:
                return self._run_once(what, deadline, fresh=False)
            except _TROUBLE as failure:
                # A server that was restarted has left all idle connections broken.
                if not retry_helps(failure):
                    raise
            return self._run_once(what, deadline, fresh=True)
        except _TROUBLE as failure:
            raise explained(failure, self.name, seconds) from failure
        except UNSTORABLE as error:
            raise unstorable(error, self.name) from error

    def _run_once(self, what: Callable[[Line], T], deadline: float, *, fresh: bool) -> T:
        pool = self._opened()
        try:
            place = pool.places.enter(deadline)
        except NoPlace:
            raise Overrun from None
        try:
            if fresh:
                pool.clear()
            line = pool.idle() or pool.open(deadline)
            try:
                result = what(line)
            except BaseException as error:
                # Otherwise the error's traceback could keep the connection, and an open transaction its locks.
                if isinstance(error, Exception) and line.idle:
                    pool.keep(line)
                else:
                    line.hang_up()
                raise
            pool.keep(line)
            return result
        finally:
            pool.places.leave(place)

    def _opened(self) -> Pool:
        pool = self._pool
        if self._closed:
            raise BudgetStoreError(f"{self.name}: this store was closed")
        if pool.pid != os.getpid():
            pool.clear()
            pool = self._pool = Pool(self._address)
        return pool

    def _check_schema(self, timeout: float) -> None:
        """Create, check or upgrade the schema. The connection is not kept: a program that opens a store and forks its
        workers before any command has no connection for them to inherit.
        """
        address, deadline = self._address, time.monotonic() + timeout
        try:
            line = connect(address.attempts, address.prepare, deadline)
            try:
                bring_up_to_date(line, address.name, address.schema, deadline)
            finally:
                line.hang_up()
        except _TROUBLE as failure:
            raise explained(failure, address.name, timeout) from failure

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their commands end."""
        self._closed = True
        self._pool.clear()

    def before_fork(self) -> None:
        """Do nothing: other threads' commands continue in the parent."""

    def after_fork(self, in_child: bool) -> None:
        """Close the parent's connections in the child."""
        if in_child and not self._closed:
            self._opened()


class _Reader:
    """Implements `stores.net.transaction.Reader`."""

    def __init__(self, sql: Statements, line: Line, project: str, deadline: float) -> None:
        self._sql = sql
        self._line = line
        self._project = project
        self._deadline = deadline
        self.read: list[Hold | None] = []
        """The holds and marks that were read."""

    def _ask(self, statement: Statement) -> list[Any]:
        return _list(_only(self._line, [statement], self._deadline))

    def subjects(self, subjects: Sequence[Subject]) -> Mapping[Subject, Seen]:
        """The accounts and versions of all these subjects."""
        return _view_of(self._ask(self._sql.view(self._project, subjects, (), None)), subjects, ()).subjects

    def holds(self, holds: Sequence[str]) -> Mapping[str, Hold | None]:
        """The holds and marks with these ids."""
        found = _view_of(self._ask(self._sql.view(self._project, (), holds, None)), (), holds).holds
        self.read += found.values()
        return found

    def due(self, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""
        return [hold_of(row) for row in self._ask(self._sql.of("due", self._project, now, most))]

    def open_holds(self) -> list[Hold]:
        """Every open hold, in the order of the ids."""
        return [hold_of(row) for row in self._ask(self._sql.of("open_holds", self._project))]

    def usage(self, key: UsageKey) -> Usage | None:
        """One row of totals."""
        owner = owner_of(key.scope, key.subject)
        rows = self._ask(self._sql.of("one_usage", self._project, owner, key.day, key.model))
        return usage_of(rows[0])[1] if rows else None


def _only(line: Line, batch: Sequence[Statement], deadline: float) -> Answer:
    """The answer to the last statement of a batch."""
    [answers] = line.ask([batch], deadline)
    if isinstance(answers, ServerError):
        raise answers
    return answers[-1]


def _raise_any(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, ServerError):
            raise outcome


def _list(answer: Answer) -> list[Any]:
    return from_json(answer) if answer else []


def _view_of(parts: Sequence[Any], subjects: Sequence[Subject], holds: Sequence[str]) -> View:
    now, due, accounts, found = parts
    rows: dict[tuple[str, str], list[Any]] = {}
    for row in accounts or ():
        rows.setdefault((row["scope"], row["subject"]), []).append(row)
    seen = {subject: Seen(0, ()) for subject in subjects}
    seen.update((Subject(*one), Seen(some[0]["version"], tuple(map(account_of, some)))) for one, some in rows.items())
    by_key = {row["id"]: hold_of(row) for row in found or ()}
    return View(now, due, seen, {hold: _named(by_key.get(stored_id(hold)), hold) for hold in holds})


def _named(hold: Hold | None, name: str) -> Hold | None:
    # Version 0.1.0 kept only the digest of a long id.
    return hold if hold is None or hold.id == name else replace(hold, id=name)


def _versions(versions: Mapping[Subject, int]) -> list[tuple[str, int]]:
    return [(owner_of(*subject), version) for subject, version in versions.items()]
