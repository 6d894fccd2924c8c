"""One project's dictionary at the endpoint, and how the ledger of this process stands to it."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Account, Default
from litellm_budget_plugin.core.commands import Command, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.guard import Guard
from litellm_budget_plugin.stores.hosted import project as project_account
from litellm_budget_plugin.stores.hosted.book import NotingBook
from litellm_budget_plugin.stores.hosted.merging import differ, merge, recorded_part
from litellm_budget_plugin.stores.hosted.records import Recorded, overwritten, read_record, write_record
from litellm_budget_plugin.stores.protocol import Outcome

_log = logging.getLogger("litellm_budget_plugin")


@dataclass(eq=False)
class Job:
    """Commands that one thread waits for. `outcomes` is there once they have been applied; what `writes` is answered only
    when the endpoint has it.
    """

    commands: Sequence[Command]
    writes: bool
    outcomes: list[Outcome] | None = None


class Wrote(NamedTuple):
    """One user's part of a write: the record and what was agreed before it, and the record that was written."""

    before: Any
    base: Account | None
    record: Any


@dataclass(eq=False)
class Line:
    """What is known of one project. `guard` lets one exchange with the endpoint go on at a time; the methods are called
    while nobody else is at the book.

    `records` is the dictionary as it was last read or written (None: never; `stored`: it is known to be there), and `bases` the accounts that it stood for then.
    `wrote` is the last write, until a read has shown whether it arrived and was not overwritten by somebody who had not seen
    it; `unsure` says that it was not acknowledged. `used`: a call has asked since `read_at` (of time.monotonic()).
    """

    project: str
    writer: str
    guard: Guard = field(default_factory=Guard)
    waiting: deque[Job] = field(default_factory=deque)
    records: dict[str, Any] | None = None
    read_at: float = -math.inf
    stored: bool = False
    used: bool = False
    bases: dict[str, Account] = field(default_factory=dict)
    wrote: dict[str, Wrote] = field(default_factory=dict)
    stamp: int = 0
    unsure: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    defaults: tuple[Default, ...] = ()
    begun: set[Default] = field(default_factory=set)
    last: Command = field(default_factory=lambda: Read("", "user"))

    @property
    def age(self) -> float:
        """Seconds since the dictionary was read."""
        return time.monotonic() - self.read_at

    def owes(self, book: NotingBook) -> bool:
        """Whether something that was done here is not known to be at the endpoint."""
        return self.unsure or bool(self._pending(book))

    def _pending(self, book: NotingBook) -> dict[str, Account | None]:
        touched = book.touched.get(self.project, set())
        pending = {}
        for user in list(touched):
            account, base = book.counting(self.project, user, self.defaults), self.bases.get(user)
            if not differ(account, base):
                touched.discard(user)
            elif user not in self.unreadable:
                pending[user] = recorded_part(account, base)
        return pending

    def begin(self, book: NotingBook, now: int) -> None:
        """Have the project's own account in the book before a command looks for it."""
        for default in self.defaults:
            if (default.scope, default.model, default.unit) == ("project", "", "usd") and default not in self.begun:
                self.begun.add(default)
                project_account.begin(book, self.project, default, self.bases.values(), now)

    def take(self, book: NotingBook, records: dict[str, Any], now: int) -> None:
        """Bring what others have written into the book. What was done here and is not there yet stays on top of it."""
        known = {} if self.records is None else self.records
        self._verify(book, known, records)
        for user in known.keys() | records.keys():
            there = records.get(user)
            if there is None or user not in known or there != known[user]:
                self._take_one(book, user, there, now)
        self.records = records

    def _verify(self, book: NotingBook, known: dict[str, Any], records: dict[str, Any]) -> None:
        """See whether the last write is there. For each user for whom it is not, it is as if it had not been made."""
        for user, wrote in self.wrote.items():
            there = records.get(user)
            if there == wrote.record:
                continue
            if there == wrote.before:
                # A user who was new and is gone was dropped by somebody, if the write is known to have arrived.
                lost = self.unsure or wrote.before is not None
            else:
                lost = overwritten(there, self.writer, self.stamp)
            if lost:
                _put(known, user, wrote.before)
                _put(self.bases, user, wrote.base)
                book.touch(self.project, user)
        self.wrote, self.unsure = {}, False

    def _take_one(self, book: NotingBook, user: str, there: Any, now: int) -> None:
        try:
            checked_id(user, "user")
        except BudgetInputError:
            # No call can name this user. The record is kept.
            return
        try:
            theirs = None if there is None else read_record(there, now)
        except BudgetInputError as error:
            self._block(book, user, str(error), now)
            return
        if self.unreadable.pop(user, None) is not None:
            book.block(self.project, user, now, blocked=False)
        base = self.bases.get(user)
        if theirs is not None and self._follows_otherwise(theirs):
            self.bases.pop(user, None)
            return
        if theirs is not None and self.records is not None:
            project_account.add(book, self.project, base, theirs, now)
        mine = book.counting(self.project, user, self.defaults)
        account, base = merge(user, mine, base, theirs)
        if account is not None:
            placed = book.place(self.project, mine, account, self.defaults, now)
            if base is not None and base.id == account.id:
                base = replace(base, id=placed.id)
        elif mine is not None and not mine.dropped:
            book.drop(self.project, mine, now)
        _put(self.bases, user, base)

    def _follows_otherwise(self, theirs: Recorded) -> bool:
        """Whether a record follows the default of a process whose DEFAULT_WINDOW is another: that is another account."""
        windows = [default.window for default in self.defaults if (default.scope, default.model) == ("user", "")]
        return theirs.follows and bool(windows) and theirs.window not in windows

    def _block(self, book: NotingBook, user: str, why: str, now: int) -> None:
        if self.unreadable.get(user) != why:
            _log.error(
                "the record of user %r in project %r cannot be understood: %s. It is left as it is at the endpoint, and the "
                "user is blocked until it is mended",
                user,
                self.project,
                why,
            )
        self.unreadable[user] = why
        book.block(self.project, user, now, blocked=True)

    def give(self, book: NotingBook, now: int) -> dict[str, Any] | None:
        """The dictionary to write; None if there is nothing to write. What is in it counts as agreed from now on, and as
        unsure until it has `arrived`.
        """
        pending = self._pending(book)
        if not pending or self.records is None:
            return None
        default = next((each for each in self.defaults if (each.scope, each.model) == ("user", "")), Default("user"))
        self.stamp = max(self.stamp + 1, time.time_ns() // 1000)
        records = dict(self.records)
        self.wrote = {}
        for user, account in pending.items():
            there, record = records.get(user), None
            if account is not None:
                record = write_record(account, default, there, now, self.writer, self.stamp)
            self.wrote[user] = Wrote(there, self.bases.get(user), record)
            _put(records, user, record)
            _put(self.bases, user, account)
        self.records, self.unsure = records, True
        return records

    def arrived(self) -> None:
        """The endpoint has acknowledged the write."""
        self.unsure, self.stored = False, True


def _put(rows: dict[str, Any], user: str, row: Any) -> None:
    if row is None:
        rows.pop(user, None)
    else:
        rows[user] = row
