"""One project's dictionary at the endpoint, and how the ledger of this process stands to it."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from litellm_budget_plugin.core.accounts import Account, Default
from litellm_budget_plugin.core.commands import Command, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.stores.guard import Guard
from litellm_budget_plugin.stores.hosted import project as project_account
from litellm_budget_plugin.stores.hosted.book import NotingBook
from litellm_budget_plugin.stores.hosted.records import Recorded, dropped_record, forgotten, read_record, write_record
from litellm_budget_plugin.stores.hosted.standing import Standing, Told
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


@dataclass(eq=False)
class Line:
    """What is known of one project. `guard` lets one exchange with the endpoint go on at a time; the methods are called
    while nobody else is at the book.

    `records` is the dictionary as it was last read or written (None: never; `stored`: it is known to be there). `used`: a call
    has asked since it was read, at `read_at` (of time.monotonic()); `wrote`: it has been written since.
    """

    project: str
    writer: str
    guard: Guard = field(default_factory=Guard)
    waiting: deque[Job] = field(default_factory=deque)
    records: dict[str, Any] | None = None
    read_at: float = -math.inf
    stored: bool = False
    used: bool = False
    wrote: bool = False
    standings: dict[str, Standing] = field(default_factory=dict)
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
        return bool(self._owed(book))

    def _owed(self, book: NotingBook) -> list[str]:
        touched, owed = book.touched.get(self.project, set()), []
        for user in list(touched):
            standing = self._folded(book, user)
            if standing.now == standing.told:
                touched.discard(user)
            elif user not in self.unreadable:
                owed.append(user)
        return owed

    def _folded(self, book: NotingBook, user: str) -> Standing:
        standing = self.standings.setdefault(user, Standing())
        standing.fold(book.counting(self.project, user, self.defaults), _stamp())
        return standing

    def begin(self, book: NotingBook, now: int) -> None:
        """Have the project's own account in the book before a command looks for it."""
        for default in self.defaults:
            if (default.scope, default.model, default.unit) == ("project", "", "usd") and default not in self.begun:
                self.begun.add(default)
                project_account.begin(book, self.project, default, self._accounts(), now)

    def _accounts(self) -> list[Account]:
        return [standing.account for standing in self.standings.values() if standing.account is not None]

    def take(self, book: NotingBook, records: dict[str, Any], now: int) -> None:
        """Bring what others have written into the book. What was done here and is not there yet stays on top of it."""
        known = {} if self.records is None else self.records
        for user in known.keys() | records.keys():
            there = records.get(user)
            if there is None or user not in known or there != known[user]:
                self._take_one(book, user, there, now)
        self.records, self.wrote, self.used = records, False, False

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
        standing = self._folded(book, user)
        book.touch(self.project, user)
        if theirs is not None and not theirs.dropped and self._follows_otherwise(theirs):
            standing.told = None
            return
        row, before = book.counting(self.project, user, self.defaults), standing.account
        account = standing.join(user, row, theirs, self.writer, _stamp())
        if account is None and row is not None and not row.dropped:
            book.drop(self.project, row, now)
        elif account is not None:
            known = before.models if before is not None and before.start == account.start else standing.spent
            if self.records is not None:
                project_account.add(book, self.project, known, account.models, now)
            account = book.place(self.project, row, account, self.defaults, now)
        standing.account = account

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

    def give(self, book: NotingBook, now: int) -> Gift | None:
        """What is to be written; None if there is nothing."""
        users = self._owed(book)
        if not users or self.records is None:
            return None
        default = next((each for each in self.defaults if (each.scope, each.model) == ("user", "")), Default("user"))
        stamp = _stamp()
        records = {user: record for user, record in self.records.items() if not forgotten(record, stamp)}
        told = dict[str, Union[Told, None]]()
        for user in users:
            standing = self.standings[user]
            standing.at, told[user] = stamp, standing.now
            if standing.account is None:
                records[user] = dropped_record(default, standing.reset, now)
            else:
                ledger = standing.ledger(self.writer, stamp)
                records[user] = write_record(standing.account, default, records.get(user), ledger, now)
        return Gift(records, told)

    def arrived(self, gift: Gift) -> None:
        """The endpoint has acknowledged what was written."""
        for user in (self.records or {}).keys() - gift.records.keys():
            self.standings.pop(user, None)
        self.records, self.stored, self.wrote = gift.records, True, True
        for user, told in gift.told.items():
            self.standings[user].told = told


class Gift(NamedTuple):
    """A dictionary to write, and what it tells of each user whose record is changed."""

    records: dict[str, Any]
    told: dict[str, Told | None]


def _stamp() -> int:
    return time.time_ns() // 1000
