"""A store whose rows are on a server and whose rules run here.

Most commands only add to sums: a hold is granted in full, an attempt is settled or released. The rules run on rows that this
process saw before, and what they change is sent as one `Add`, which the server applies only if nothing that the rules depend on
has changed. Anything but a plain yes (a refusal, a part of what was wanted) is decided on rows that were read for it. Whatever is
left runs as a transaction.

Every reply is one that the rules give on the rows as they were at some moment between the question and the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.book import Changes
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    PLENTY,
    Accounts,
    Change,
    Command,
    Granted,
    Read,
    ReadUsage,
    Release,
    Released,
    Reply,
    Reserve,
    Settle,
    Settled,
    Sweep,
    Swept,
    UsageRows,
)
from litellm_budget_plugin.core.holding import MOST_DUE
from litellm_budget_plugin.core.ledger import change, expire_some, state_of
from litellm_budget_plugin.core.names import clean_label
from litellm_budget_plugin.core.settling import next_threshold
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.net.engine import Add, Engine, Seen, Sum, View
from litellm_budget_plugin.stores.net.transaction import shape_of
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.rows import Page, Rows

K = TypeVar("K")
V = TypeVar("V")

_KEPT = 10_000
"""How many subjects, and how many holds, are remembered."""
_TRIES = 4
"""How often a command is tried before it runs as a transaction: others may change something each time."""
_FOREVER = 2**62
_COPYING = 60.0
"""How much longer (seconds) a page of a copy may take: no call waits for it."""

_Guarded = Reserve | Settle | Release
# Half as long as asking for the union.
_GUARDED = (Reserve, Settle, Release)


class GuardedStore:
    """A `stores.protocol.Store` over an engine. `timeout` is in seconds."""

    remote = True

    def __init__(self, engine: Engine, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._engine = engine
        self._test_clock = test_clock
        self._timeout = timeout
        self._closed = False
        # What is remembered may be old: whatever depends on it is checked by the server.
        self._subjects: _Recent[tuple[str, Subject], Seen] = _Recent()
        self._holds: _Recent[tuple[str, str], Hold] = _Recent()
        self._ahead = 0
        """How far the server's clock is ahead of this machine's, in microseconds."""

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        return self._execute(command, self._deadline(timeout))

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each. Those that follow each other and only add to sums take one
        round trip.
        """
        deadline = self._deadline(timeout)
        outcomes: list[Outcome] = []
        while len(outcomes) < len(commands):
            outcomes += self._together(commands[len(outcomes) :], deadline)
            if len(outcomes) < len(commands):
                try:
                    outcomes.append(self._execute(commands[len(outcomes)], deadline))
                except BudgetInputError as error:
                    outcomes.append(error)
        return outcomes

    def _deadline(self, timeout: float | None) -> float:
        if self._closed:
            raise BudgetStoreError(f"{self._engine.name}: this store was closed")
        return time.monotonic() + (self._timeout if timeout is None else min(timeout, self._timeout))

    def _execute(self, command: Command, deadline: float) -> Reply:
        check(command)
        if isinstance(command, Read):
            return self._read(command, deadline)
        if isinstance(command, ReadUsage):
            asked = (command.project, command.scope, command.subject, command.since, command.until)
            return UsageRows(tuple(self._engine.usage_rows(*asked, deadline)))
        if isinstance(command, Sweep):
            return self._sweep(command, deadline)
        reply = self._guarded(command, deadline) if isinstance(command, _GUARDED) else None
        return self._transacted(command, deadline) if reply is None else reply

    # Adding to sums.

    def _together(self, commands: Sequence[Command], deadline: float) -> list[Outcome]:
        """The replies of the first commands: of as many as could be applied in one round trip."""
        plans: list[_Plan] = []
        some: list[_Guarded] = []
        with suppress(BudgetInputError):
            for command in _addable(commands):
                some.append(command)  # noqa: PERF402  # what came before one that is wrong counts
        # Whoever executes the first of the rest reports what is wrong with it.
        with suppress(BudgetInputError):
            self._look_for_missing(some, deadline)
            for command in some:
                plan = self._planned(command)
                if plan is None or plan.add is None or plan.exact:
                    break
                plans.append(plan)
            applied = self._engine.add([plan.add for plan in plans if plan.add is not None], deadline) if plans else 0
            for plan in plans[:applied]:
                self._remember(plan)
            return [plan.reply for plan in plans[:applied]]
        return []

    def _look_for_missing(self, commands: Sequence[_Guarded], deadline: float) -> None:
        missing: dict[str, set[Subject]] = {}
        for command in commands:
            unknown = {one for one in self._subjects_of(command) if (command.project, one) not in self._subjects}
            if unknown:
                missing.setdefault(command.project, set()).update(unknown)
        for project, subjects in missing.items():
            self._look(project, sorted(subjects), (), commands[0].now, deadline)

    def _guarded(self, command: _Guarded, deadline: float) -> Reply | None:
        """The reply, if it could be had without a transaction."""
        if not _is_plain(command):
            return None
        subjects = self._subjects_of(command)
        view: View | None = None
        for attempt in range(_TRIES):
            if attempt or any((command.project, subject) not in self._subjects for subject in subjects):
                view = self._look(command.project, sorted(subjects), (command.hold,), command.now, deadline)
            plan = self._planned(command, view)
            if view is None and (plan is None or plan.exact):
                continue
            if plan is None:
                return None
            if plan.add is None:
                return plan.reply
            if self._engine.add([plan.add], deadline):
                self._remember(plan)
                return plan.reply
        return None

    def _subjects_of(self, command: _Guarded) -> set[Subject]:
        known = None if isinstance(command, Reserve) else self._holds.get((command.project, command.hold))
        legs = {Subject(leg.scope, leg.subject) for leg in (known.legs if known else ())}
        return legs if isinstance(command, Release) else legs.union(command.subjects)

    def _look(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        view = self._engine.view(project, subjects, holds, now if self._test_clock else None, deadline)
        self._ahead = view.now - time.time_ns() // 1000
        for subject, seen in view.subjects.items():
            self._subjects.put((project, subject), seen)
        return view

    def _planned(self, command: _Guarded, view: View | None = None) -> _Plan | None:
        """What to send for a command, by the rules and what is known, or by a view; None if that takes a transaction."""
        if view is not None:
            now, hold = view.now, view.holds.get(command.hold)
        else:
            now = command.now if self._test_clock and command.now is not None else time.time_ns() // 1000 + self._ahead
            # A Reserve makes a hold; what settles one that was not seen here has most likely none.
            hold = None if isinstance(command, Reserve) else self._holds.get((command.project, command.hold))
        if hold is not None and (hold.state != "open" or isinstance(command, Reserve)):
            return None
        book = _KnownRows(command.project, self._subjects, hold, view)
        try:
            reply = change(book, command, now)
            return _plan(command, reply, book, now, test_clock=self._test_clock)
        except _Unknown:
            return None

    def _remember(self, plan: _Plan) -> None:
        """Keep what an Add that was applied has made of the rows."""
        add = plan.add
        if add is None:
            return
        for subject, seen in plan.read.items():
            rows = tuple([plan.accounts.get(row.ref, row) for row in seen.accounts])
            self._subjects.put((add.project, subject), Seen(seen.version, rows))
        if add.hold.state == "open":
            self._holds.put((add.project, add.hold.id), add.hold)
        else:
            self._holds.drop((add.project, add.hold.id))

    # Everything else.

    def _transacted(self, command: Change, deadline: float) -> Reply:
        subjects = set(command.subjects) if isinstance(command, (Reserve, Settle)) else set()
        if (subject := getattr(command, "subject", None)) is not None:
            subjects.add(subject)
        holds = [*getattr(command, "holds", ()), getattr(command, "hold", None), getattr(command, "replaces", None)]
        named = [hold for hold in holds if hold is not None]
        for subject in subjects:
            self._subjects.drop((command.project, subject))
        return self._engine.transact(
            command.project,
            sorted(subjects),
            named,
            command.now if self._test_clock else None,
            lambda transaction: change(transaction, command, transaction.now),
            deadline,
        )

    def _read(self, command: Read, deadline: float) -> Accounts:
        now = command.now if self._test_clock else None
        view, ids = self._rows_of(command, now, deadline)
        if view.due:
            self._expire_some(command.project, now, deadline)
            view, ids = self._rows_of(command, now, deadline)
        after = ids[-1] if command.subject is None and len(ids) == command.page else None
        states = [
            state_of(account, default_of(account, command.defaults), view.now)
            for subject in ids
            for account in sorted(view.subjects[Subject(command.scope, subject)].accounts, key=_ref)
        ]
        return Accounts(view.now, tuple(states), after)

    def _rows_of(self, command: Read, now: int | None, deadline: float) -> tuple[View, list[str]]:
        if command.subject is None:
            return self._engine.page(command.project, command.scope, command.after, command.page, now, deadline)
        subject = Subject(command.scope, command.subject)
        return self._engine.view(command.project, (subject,), (), now, deadline), [command.subject]

    def _expire_some(self, project: str, now: int | None, deadline: float) -> int:
        return self._engine.transact(
            project, (), (), now, lambda transaction: expire_some(transaction, project, transaction.now), deadline
        )

    def _sweep(self, command: Sweep, deadline: float) -> Swept:
        project, now = command.project, command.now if self._test_clock else None
        present = self._engine.view(project, (), (), now, deadline).now
        # First what needs no memory: a server that is full has room then for the rest.
        forgotten = self._engine.forget(project, present - command.marks_kept, deadline)
        folded = self._engine.fold(project, (present - command.days_kept) // DAY, deadline)
        expired = some = self._expire_some(project, now, deadline)
        while some >= MOST_DUE:
            some = self._expire_some(project, now, deadline)
            expired += some
        return Swept(expired, forgotten, folded)

    def sync(self) -> None:
        """What a server has answered it keeps, as far as it is set up to."""

    def projects(self) -> list[str]:
        """Every project that has a row, sorted by code point."""
        return self._engine.projects(self._deadline(None))

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project in a stable order, about `most`."""
        return self._engine.export(project, after, most, self._deadline(None) + _COPYING)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys, in one step."""
        self._engine.load(project, rows, self._deadline(None) + _COPYING)

    def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        self._engine.close()


@dataclass(frozen=True, slots=True)
class _Plan:
    """The reply to a command if `add` is applied, or at once if there is nothing to add. With `exact` it holds only for rows
    that were read for it.
    """

    reply: Reply
    add: Add | None
    read: dict[Subject, Seen]
    accounts: dict[Ref, Account]
    exact: bool


class _Unknown(Exception):
    """The rules ask for a row that is not known here, or change more than sums."""


class _KnownRows:
    """A `core.book.Book` of rows seen before. It notes which subjects were read, and with which versions."""

    def __init__(
        self, project: str, known: _Recent[tuple[str, Subject], Seen], hold: Hold | None, view: View | None
    ) -> None:
        self._project = project
        self._known = known
        self._hold = hold
        self._view = view
        self.read: dict[Subject, Seen] = {}
        self.changes = Changes()

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""
        seen = None if self._view is None else self._view.subjects.get(subject)
        seen = seen or self._known.get((project, subject))
        # A row that goes away when nothing is held on it any more is no matter of sums.
        if seen is None or any(account.dropped for account in seen.accounts):
            raise _Unknown
        self.read[subject] = seen
        return [account.copy() for account in seen.accounts]

    def hold(self, project: str, hold: str) -> Hold | None:  # noqa: ARG002  # the protocol's
        """The one hold that the command is about."""
        if self._hold is None or self._hold.id != hold:
            return None
        return self._hold.copy()

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:  # noqa: ARG002
        """Asked before a refusal: what is due must be expired by a transaction."""
        if self._view is not None and self._view.due:
            raise _Unknown
        return []

    def write(self, project: str, changes: Changes) -> None:  # noqa: ARG002
        """Take what a command changes."""
        self.changes = changes

    def recorded(self, ref: Ref) -> Account:
        """An account as it was read."""
        for account in self.read[Subject(ref.scope, ref.subject)].accounts:
            if account.ref == ref:
                return account
        raise _Unknown

    def open_holds(self, project: str) -> list[Hold]:  # noqa: ARG002
        """Not known here."""
        raise _Unknown

    def usage(self, project: str, key: UsageKey) -> Usage | None:  # noqa: ARG002
        """Not known here."""
        raise _Unknown


def _is_plain(command: _Guarded) -> bool:
    """Whether a command may be one that adds to sums only."""
    if isinstance(command, Reserve):
        return not command.replaces and not command.rolls
    return isinstance(command, Release) or not (command.unless or command.parent or command.rolls)


def _addable(commands: Sequence[Command]) -> Iterator[_Guarded]:
    """The first commands, as long as they may only add to sums and are about different holds. Raises BudgetInputError behind
    them for one that cannot be accepted.
    """
    seen = set()
    for command in commands:
        if not isinstance(command, _GUARDED) or not _is_plain(command) or (command.project, command.hold) in seen:
            return
        check(command)
        seen.add((command.project, command.hold))
        yield command


def _plan(command: _Guarded, reply: Reply, book: _KnownRows, now: int, *, test_clock: bool) -> _Plan:
    changes, exact = book.changes, not _is_yes(command, reply)
    if not changes.holds:
        return _Plan(reply, None, book.read, {}, exact=True)
    accounts: dict[Ref, Account] = {}
    sums = []
    for ref in sorted(changes.accounts):
        old, new = book.recorded(ref), changes.accounts[ref]
        if new is None or shape_of(new) != shape_of(old):
            raise _Unknown
        accounts[ref] = new
        sums.append(_sum(command, old, new, now, exact=exact))
    since, until = _valid(command, book, now)
    hold = changes.holds[command.hold]
    hold.at = hold.at - now if hold.state == "open" else 0
    add = Add(
        command.project,
        since,
        until,
        tuple((subject, seen.version) for subject, seen in sorted(book.read.items())),
        tuple(sums),
        hold,
        book.hold(command.project, command.hold),
        tuple(mark for mark in changes.holds if mark != command.hold),
        changes.usage,
        command.now if test_clock else None,
    )
    return _Plan(reply, add, book.read, accounts, exact)


def _is_yes(command: _Guarded, reply: Reply) -> bool:
    """Whether a reply is right for any rows that the guards of an Add let pass."""
    if isinstance(command, Reserve):
        return isinstance(reply, Granted) and reply.amounts == command.want
    return isinstance(reply, Released) or (isinstance(reply, Settled) and not reply.crossings)


def _sum(command: _Guarded, old: Account, new: Account, now: int, *, exact: bool) -> Sum:
    most = most_spent = None
    if isinstance(command, Reserve):
        wanted = command.want.of(old.ref.unit)
        limit = old.effective_limit(default_of(old, command.defaults), now)
        if limit is not None and wanted:
            # For a loose bound there has to be room for many times as much.
            times = PLENTY if command.cheap and old.ref.unit != "calls" else 1
            most = limit - (times - 1) * wanted
    elif isinstance(command, Settle) and command.thresholds:
        most_spent = next_threshold(old, default_of(old, command.defaults), command.thresholds, now)
    return Sum(
        old.ref,
        new.spent - old.spent,
        new.held - old.held,
        clean_label(command.model) if isinstance(command, Settle) else "",
        None if exact else most,
        most_spent,
        (old.spent, old.held) if exact else None,
    )


def _valid(command: _Guarded, book: _KnownRows, now: int) -> tuple[int, int]:
    """From when to when the rules would answer the same: the same day, the same windows, the same raises."""
    if isinstance(command, Settle) and command.at is not None and command.at <= now:
        since, until = command.at, _FOREVER
    else:
        since = now // DAY * DAY
        until = since + DAY
    for seen in book.read.values():
        for account in seen.accounts:
            if account.end is not None and account.soonest <= now:
                since = max(since, account.soonest)
            for end in (account.end, account.raised_until):
                if end is not None and end > now:
                    until = min(until, end)
    return since, until


def _ref(account: Account) -> Ref:
    return account.ref


class _Recent(Generic[K, V]):
    """The values that were put in last. Each operation of a dictionary is one step for other threads and for interrupts."""

    def __init__(self) -> None:
        self._values: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value of a key, None if it is not here."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, and let the oldest go where there are too many."""
        self._values.pop(key, None)
        self._values[key] = value
        while len(self._values) > _KEPT:
            # Another thread may be doing the same.
            with suppress(KeyError, RuntimeError, StopIteration):
                del self._values[next(iter(self._values))]

    def drop(self, key: K) -> None:
        """Let a key go, if it is here."""
        self._values.pop(key, None)
