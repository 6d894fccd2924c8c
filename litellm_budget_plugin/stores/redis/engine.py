"""Rows on a Redis server: an `Engine`. A few short scripts load, write and add; the rules run in the client.

A transaction holds a lease on its project, from the script that loads its rows to the one that writes them. The lease
is a key that contains the transaction's own token, and expires by itself. A client that dies or is suspended stalls the
others only until then; its later writes are refused, so its work is repeated. Adds wait for a lease.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.net.engine import Add, Seen, Sum, View
from litellm_budget_plugin.stores.net.transaction import Transaction, new_version
from litellm_budget_plugin.stores.redis.address import Address
from litellm_budget_plugin.stores.redis.asking import Server
from litellm_budget_plugin.stores.redis.names import check_root, root_of
from litellm_budget_plugin.stores.redis.rows import (
    Writes,
    account_key,
    hold_of,
    hold_row,
    json_of,
    name_of,
    seen_of,
    subject_of,
    total_row,
    totals_of,
)
from litellm_budget_plugin.stores.redis.scripts import Request
from litellm_budget_plugin.stores.redis.upgrading import bring_over
from litellm_budget_plugin.stores.rows import Page, Rows

_log = logging.getLogger("litellm_budget_plugin")

T = TypeVar("T")

VERSION = 2
"""The version of the keys and their content. A server with a higher one is refused."""

_BUSY, _UNPREPARED = -1, -2
_LEASE, _LONGEST_LEASE = 200, 3200
"""The first length of a lease and the longest, in milliseconds. It is doubled each time it was too short."""
_PAUSES = (0.0005, 0.002)
"""The shortest and the longest pause (seconds) before asking a busy project again."""
_ADDS = 100
"""The most steps in one run of a script: others wait meanwhile."""
_ROWS = 500
"""The most subjects or holds, or the approximate number of totals, that one run of a script reads or deletes."""
_KINDS = {"s": "i", "o": "l", "c": "z", "t": "w"}
"""The letters of an export for the kinds of rows, in its order, and their indexes: accounts, open holds, marks, totals."""
_ANY_DAY = 2**52


class RedisEngine:
    """Rows of a ledger on a Redis server, shared by every process that can reach it. `timeout` (seconds) bounds the
    opening and each connection attempt.
    """

    def __init__(self, address: Address, *, timeout: float = 2.0) -> None:
        self.name = address.name
        self._prefix = address.prefix
        self._server = Server(address, timeout)
        request = Request("check", check_root(self._prefix), (b"%d" % VERSION,))
        try:
            version = int(self._server.answer(request, time.monotonic() + timeout))
        finally:
            # The connection is not kept: a process that forks before its first command cannot inherit it.
            self._server.renew()
        if version > VERSION:
            raise BudgetStoreError(
                f"{self.name}: the ledger was written by a later version of litellm-budget-plugin (keys of version "
                f"{version}, this one knows {VERSION}); update this installation"
            )
        _log.info("the budget ledger is %s", self.name)

    def _run(self, script: str, project: str, argument: Any, deadline: float) -> Any:
        """Return a script's answer, after waiting for another process's lease and upgrading rows of version 1."""
        root = root_of(self._prefix, project)
        request = Request(script, root, (json_of(argument),))
        while True:
            answer = self._server.answer(request, deadline)
            if answer == _BUSY:
                self._pause(deadline)
            elif answer == _UNPREPARED:
                while not bring_over(self._server, root, deadline):
                    self._pause(deadline)
            else:
                return answer

    def _pause(self, deadline: float) -> None:
        time.sleep(random.uniform(*_PAUSES))  # noqa: S311  # no secret
        if time.monotonic() >= deadline:
            raise BudgetStoreUnavailable(f"{self.name}: another process keeps this project's rows busy; try again")

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        """Apply steps in their order, up to the first that cannot be applied, with one round trip for each hundred of
        one project; return how many were.
        """
        applied = 0
        for project, group in groupby(adds, attrgetter("project")):
            steps = [_step(add) for add in group]
            for first in range(0, len(steps), _ADDS):
                some = steps[first : first + _ADDS]
                done: int = self._run("add", project, some, deadline)
                applied += done
                if done < len(some):
                    return applied
        return applied

    def view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        """Rows of a project, in one round trip."""
        return self._view(project, subjects, holds, [_or_false(now), False, 0], deadline)

    def _view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], how: list[Any], deadline: float
    ) -> View:
        """Read rows; `how` is the first three arguments of load.lua."""
        asked = [*how, [name_of(subject) for subject in subjects], holds, []]
        at, due, *found = self._leased_run("load", project, asked, deadline)
        rows, marks = found[: len(subjects)], found[len(subjects) :]
        return View(
            at,
            bool(due),
            {subject: seen_of(subject, flat) for subject, flat in zip(subjects, rows)},
            {hold: hold_of(hold, *one) for hold, one in zip(holds, marks)},
        )

    def _leased_run(self, script: str, project: str, argument: Any, deadline: float) -> Any:
        """Return the answer of a script that needs a lease. Raises _LeaseLost if the lease is lost."""
        answer = self._run(script, project, argument, deadline)
        if answer == 0:
            raise _LeaseLost
        return answer

    def transact(
        self,
        project: str,
        subjects: Sequence[Subject],
        holds: Sequence[str],
        now: int | None,
        work: Callable[[Transaction], T],
        deadline: float,
        writes_of: Callable[[Transaction], Writes] | None = None,
    ) -> T:
        """Return the result of `work`, after writing the transaction's changes, or those of `writes_of`, under the project's lease."""
        root, lasts = root_of(self._prefix, project), _LEASE
        while True:
            token = os.urandom(8).hex()  # not `random`: a fork that Python does not see copies its state
            view = self._view(project, subjects, holds, [_or_false(now), token, lasts], deadline)
            transaction = Transaction(view, _LeasedRows(self, project, token, deadline))
            try:
                result = work(transaction)
                writes = (writes_of or _writes_of)(transaction)
            except _LeaseLost:
                lasts = min(2 * lasts, _LONGEST_LEASE)
                continue
            except BaseException:
                self._release(root, token, deadline)
                raise
            if not writes:
                self._release(root, token, deadline)
                return result
            if self._run("write", project, [token, 0, writes.commands(), writes.totals], deadline) == 1:
                return result
            # Also if the answer to a first attempt was lost: the repeated work then finds that it was done.
            lasts = min(2 * lasts, _LONGEST_LEASE)

    def _release(self, root: bytes, token: str, deadline: float) -> None:
        """Release a lease without waiting for the answer: the request deletes that lease and no other, whenever it arrives."""
        # If the request is lost, the lease expires by itself.
        with suppress(BudgetStoreError):
            self._server.tell(Request("release", root, (token.encode(),)), deadline)

    def page(
        self, project: str, scope: str, after: str, most: int, now: int | None, deadline: float
    ) -> tuple[View, list[str]]:
        """Up to `most` ids in a scope that have accounts and follow `after`, with their rows."""
        found: dict[Subject, Seen] = {}
        at, due, last = 0, False, f"{name_of(Subject(scope, ''))}{after}"
        while len(found) < most:
            some = min(most - len(found), _ROWS)
            named = [_or_false(now), ":i", ":n:", f"({last}", _end_of(scope), some, 20 * _ROWS, False, False]
            at, due, more, *rows = self._run("page", project, named, deadline)
            for name, flat in rows:
                found[subject_of(name)] = seen_of(subject_of(name), flat)
            if more is None:
                break
            last = more.decode()
        return View(at, bool(due), found, {}), [subject.id for subject in found]

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int, deadline: float
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""
        first, last = f"({name_of(Subject(scope, ''))}", _end_of(scope)
        if subject is not None:
            first = last = f"[{name_of(Subject(scope, subject))}"
        found: list[tuple[UsageKey, Usage]] = []
        while True:
            asked = [False, ":w", ":u:", first, last, _ROWS, _ROWS, since, until]
            _, _, more, *rows = self._run("page", project, asked, deadline)
            for name, flat in rows:
                found += totals_of(subject_of(name), flat)
            if more is None:
                return sorted(found)
            first = f"({more.decode()}"

    def forget(self, project: str, before: int, deadline: float) -> int:
        """Delete marks that were closed before a time, in steps; return how many."""
        forgotten, some = 0, _ROWS
        while some == _ROWS:
            some = self._run("forget", project, [before, _ROWS], deadline)
            forgotten += some
        return forgotten

    def fold(self, project: str, before_day: int, deadline: float) -> int:
        """Add the totals of days from 1 to before `before_day` to day 0, in steps; return how many rows were folded."""
        folded, more = 0, 1
        while more:
            rows, more = self._run("fold", project, [before_day, _ROWS], deadline)
            folded += rows
        return folded

    def projects(self, deadline: float) -> list[str]:
        """Every project that has a row, sorted. Scans all keys of the servers, in steps."""
        return self._server.projects(deadline)

    def export(self, project: str, after: str, most: int, deadline: float) -> Page:
        """Raw rows in a stable order: accounts by their subjects, open holds and marks by their times, totals by subjects."""
        kind, _, rest = (after or "s 0 ").partition(" ")
        skip, _, place = rest.partition(" ")
        if kind not in _KINDS or not skip.isdigit():
            raise BudgetInputError(f"an export continues from the `after` of an earlier page, got {after!r:.80}")
        index, most = f":{_KINDS[kind]}", max(1, most)
        if kind in "oc":
            asked = [False, index, place or "-inf", "+inf", int(skip), most]
            answer = self._run("between", project, asked, deadline)
            found, skipped = _holds(answer), int(skip)
            for at in answer[1::3]:
                skipped, place = (skipped + 1, place) if at.decode() == place else (1, at.decode())
            further = f"{kind} {skipped} {place}" if len(found) == most else _next_kind(kind)
            return Page(Rows(holds=tuple(found)), further)
        hashes, fields, *days = (":n:", 8 * most, False, False) if kind == "s" else (":u:", most, -_ANY_DAY, _ANY_DAY)
        asked = [False, index, hashes, f"({place}" if place else "-", "+", most, fields, *days]
        _, _, last, *rows = self._run("page", project, asked, deadline)
        further = _next_kind(kind) if last is None else f"{kind} 0 {last.decode()}"
        named = [(subject_of(name), flat) for name, flat in rows]
        if kind == "s":
            accounts = [account for subject, flat in named for account in seen_of(subject, flat).accounts]
            return Page(Rows(accounts=tuple(accounts)), further)
        return Page(Rows(usage=tuple(total for subject, flat in named for total in totals_of(subject, flat))), further)

    def load(self, project: str, rows: Rows, deadline: float) -> None:
        """Put rows in place of those with the same keys, in one step."""
        put: dict[Subject, dict[Ref, Account]] = {}
        for account in rows.accounts:
            put.setdefault(Subject(account.ref.scope, account.ref.subject), {})[account.ref] = account

        def writes_of(transaction: Transaction) -> Writes:
            writes = Writes()
            for subject, accounts in put.items():
                old = transaction.accounts(project, subject)
                new = [account for account in old if account.ref not in accounts] + list(accounts.values())
                writes.subject(subject, old, new, new_version())
            for hold in rows.holds:
                writes.hold(hold)
            for key, usage in rows.usage:
                writes.total(key, usage)
            return writes

        self.transact(project, list(put), (), None, lambda _: None, deadline, writes_of)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()


class _LeaseLost(Exception):
    """Other clients may have changed the rows of this transaction."""


class _LeasedRows:
    """A `Reader` of more rows for a transaction, whose lease must still exist."""

    def __init__(self, engine: RedisEngine, project: str, token: str, deadline: float) -> None:
        self._engine, self._project, self._token, self._deadline = engine, project, token, deadline

    def _view(self, subjects: Sequence[Subject], holds: Sequence[str]) -> View:
        return self._engine._view(self._project, subjects, holds, [False, self._token, 0], self._deadline)  # noqa: SLF001

    def _run(self, script: str, argument: Any) -> Any:
        return self._engine._leased_run(script, self._project, argument, self._deadline)  # noqa: SLF001

    def subjects(self, subjects: Sequence[Subject]) -> Mapping[Subject, Seen]:
        """The accounts and versions of all these subjects."""
        return self._view(subjects, ()).subjects

    def holds(self, holds: Sequence[str]) -> Mapping[str, Hold | None]:
        """The holds and marks with these ids."""
        return self._view((), holds).holds

    def due(self, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""
        return self._open_until(now, most)

    def open_holds(self) -> list[Hold]:
        """Every open hold, in the order of the ids."""
        return sorted(self._open_until("+inf", None), key=attrgetter("id"))

    def _open_until(self, limit: int | str, most: int | None) -> list[Hold]:
        found: list[Hold] = []
        while True:
            some = _ROWS if most is None else min(_ROWS, most - len(found))
            page = _holds(self._run("between", [self._token, ":l", "-inf", limit, len(found), some]))
            found += page
            if len(page) < some or len(found) == most:
                return found

    def usage(self, key: UsageKey) -> Usage | None:
        """One row of totals."""
        subject = Subject(key.scope, key.subject)
        total = [name_of(subject), key.day, key.model]
        *_, flat = self._run("load", [False, self._token, 0, [], [], [total]])
        return dict(totals_of(subject, flat)).get(key)


def _writes_of(transaction: Transaction) -> Writes:
    """The writes of a transaction's changes."""
    writes, changes, versions = Writes(), transaction.changes, transaction.versions()
    for subject in {Subject(ref.scope, ref.subject) for ref in changes.accounts}:
        old = transaction.read(subject)
        rows = {account.ref: account for account in old} | {
            ref: account for ref, account in changes.accounts.items() if ref[:2] == subject
        }
        new = [account for account in rows.values() if account is not None]
        writes.subject(subject, old, new, versions.get(subject))
    for hold in changes.holds.values():
        writes.hold(hold)
    for key, usage in changes.usage.items():
        writes.add_total(key, usage)
    return writes


def _step(add: Add) -> list[Any]:
    """An Add in the form that add.lua takes."""
    versions: dict[tuple[str, str], str] = {subject: f"{version}" for subject, version in add.subjects}
    sums = [_sum(one, versions[one.ref[:2]]) for one in add.sums]
    others = versions.keys() - [one.ref[:2] for one in add.sums]
    sums += [[name_of(subject), versions[subject]] for subject in others]
    return [
        _or_false(add.now),
        add.since,
        add.until,
        sums,
        [_hold(hold, expected) for hold, expected in add.holds],
        add.marks,
        [total_row(key, usage) for key, usage in add.usage.items()],
    ]


def _hold(hold: Hold, expected: Hold | None) -> list[Any]:
    left = hold.at if expected is None or hold.state != "open" else False
    return [hold.id, left, _or_false(hold_row(hold)), False if expected is None else _or_false(hold_row(expected))]


def _sum(one: Sum, version: str) -> list[Any]:
    ref, spent, held, model, most, known = one
    found = [name_of(ref[:2]), version, account_key(*ref[2:]), spent, held, model]
    if most is None and known is None:
        return found
    return [*found, _or_false(most), *((False, False) if known is None else map(str, known))]


def _or_false(value: Any) -> Any:
    """The value, or False for None, which Lua cannot pass in a list."""
    return False if value is None else value


def _holds(answer: Sequence[bytes]) -> list[Hold]:
    """The holds in an answer of between.lua: id, time, row, ..."""
    found = [hold_of(hold.decode(), at, row) for hold, at, row in zip(answer[::3], answer[1::3], answer[2::3])]
    return [hold for hold in found if hold is not None]


def _end_of(scope: str) -> str:
    """The upper bound of the names of a scope's subjects: the colon is replaced by the next character."""
    return f"({name_of(Subject(scope, ''))[:-1]};"


def _next_kind(kind: str) -> str | None:
    kinds = list(_KINDS)
    return f"{kinds[kinds.index(kind) + 1]} 0 " if kind != kinds[-1] else None
