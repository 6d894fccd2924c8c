"""How a user's account in this process stands to the user's record at the endpoint. Pure: no clock, no exchange.

What was spent here since the last reset is known by itself, and so is what part of that the record has: the difference
is added to what the record says, however often it was overwritten by others. A limit, a window, a reset or a drop made here
wins over what was there when it is written; of two made in different processes, the later one wins. Of two windows, the one
that began later counts, without the spend of the earlier one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Account, Ref
from litellm_budget_plugin.core.commands import MICROS
from litellm_budget_plugin.stores.hosted.records import REMEMBERED, Ledger, Part, Recorded, began

Models = dict[str, int]

RECENT = 10 * MICROS
"""How long (microseconds) after a write it may still be overwritten by one that had been under way."""


class Told(NamedTuple):
    """What the endpoint knows, or is to know: what was spent here, when limit or window were last changed and the spend
    was last reset, and where the window began.
    """

    spent: Models
    changed: int
    reset: int
    start: int


@dataclass(eq=False)
class Standing:
    """`account` is the account as it was when `fold` or `join` last saw it; `spent` is what this process has spent on it
    since the last reset, `others` what other stores have, as far as the record tells them apart; `told` is what the
    record is known to say (None: there is none). What is so old that others no longer tell it apart is in neither. `at` is the time of this store's last write.
    """

    account: Account | None = None
    spent: Models = field(default_factory=dict)
    others: dict[str, Part] = field(default_factory=dict)
    changed: int = 0
    reset: int = 0
    at: int = 0
    told: Told | None = None

    @property
    def now(self) -> Told | None:
        """What the record should say; None if there should be none."""
        account = self.account
        if account is None:
            return None if self.told is None else Told({}, self.changed, self.reset, 0)
        return Told(dict(self.spent), self.changed, self.reset, began(account.start, account.end))

    def fold(self, row: Account | None, stamp: int) -> None:
        """See what this process has made of the account since the last time. `stamp` is the time of changes."""
        base, mine = self.account, _recorded(row, self.account)
        self.account = mine
        if _said(mine) == _said(base):
            return
        stamp = max(stamp, self.changed + 1, self.reset + 1)
        if mine is None:
            self.spent, self.others = {}, {}
            self.changed = self.reset = stamp
        elif base is None:
            self.spent = dict(mine.models)
            self.changed = stamp if mine.pinned else self.changed
        else:
            self._fold_changes(mine, base, stamp)

    def _fold_changes(self, mine: Account, base: Account, stamp: int) -> None:
        same_window = mine.ref.window == base.ref.window
        if (mine.id, mine.epoch) != (base.id, base.epoch):
            rolled = mine.id == base.id and same_window and mine.end is not None and mine.start > base.start
            self.spent, self.others = dict(mine.models), {}
            self.reset = self.reset if rolled else stamp
        else:
            self.spent = _sum(self.spent, mine.models, base.models)
            if _times(mine) != _times(base):
                self.changed = self.reset = stamp
        limits = [(row.pinned, row.pinned and row.limit) for row in (mine, base)]
        if limits[0] != limits[1] or not same_window:
            self.changed = stamp

    def join(self, user: str, row: Account | None, theirs: Recorded | None, writer: str, stamp: int) -> Account | None:
        """The account as it is now that the record says `theirs` (None: there is none any more). What was changed here must
        have been folded in; `row` is what stands in the book.
        """
        if theirs is None:
            return self._join_nothing(stamp)
        there = self._part_there(theirs, writer, stamp)
        mine, told = self.account, self.told
        self.told = _told(theirs, there)
        # An older limit or spend than was written here means that somebody overwrote it unseen. Long after the write, and
        # in a record that was made anew without our keys, it means what it says; only what was not told yet comes after it.
        trusted = told is not None and (theirs.foreign or stamp - self.at > RECENT)
        known = told if trusted and told is not None else self.told
        untold, later = self._untold(told), self._later(mine, theirs, known, trusted)
        if mine is None and later > 0:
            # It was dropped here, and that is still to be written.
            return None
        settings_stay = mine is not None and self.changed > known.changed
        account = _taken(user, theirs, row if mine is None else mine)
        if mine is not None:
            if settings_stay:
                account.pinned, account.limit = mine.pinned, mine.limit
            if later > 0:
                account.ref, account.created_at = mine.ref, mine.created_at
                account.start, account.end = mine.start, mine.end
            account.models = self._models(mine, theirs, there, untold, later)
            account.spent = sum(account.models.values())
            _mind_corrections(account, mine)
        if later <= 0:
            self.spent = dict(self.spent) if later == 0 and mine is not None else _sum(there, untold, {})
            self.reset, self.others = theirs.reset, _without(theirs.parts, writer)
        self.changed = self.changed if settings_stay else theirs.changed
        gone = theirs.dropped and not settings_stay and not account.models
        return None if gone else account

    def _join_nothing(self, stamp: int) -> Account | None:
        """There is no record. One that was written a moment ago was overwritten by somebody who had not seen it. Else somebody
        has forgotten the user: what was spent here and not told yet stays, and a limit that was set here.
        """
        mine, told, self.told = self.account, self.told, None
        if mine is None:
            self.spent, self.others, self.changed, self.reset = {}, {}, 0, 0
        if mine is None or told is None or stamp - self.at < RECENT:
            return mine
        self.spent = {model: spent for model, spent in self._untold(told).items() if spent > 0}
        limited = self.changed > told.changed
        self.others = {}
        self.changed = self.reset = max(stamp, self.changed + 1, self.reset + 1)
        if not limited and not self.spent:
            return None
        pinned, limit = (mine.pinned, mine.limit) if limited else (False, None)
        kept = replace(mine, pinned=pinned, limit=limit, models=dict(self.spent), spent=sum(self.spent.values()))
        _mind_corrections(kept, mine)
        return kept

    def _part_there(self, theirs: Recorded, writer: str, stamp: int) -> Models:
        part = theirs.parts.get(writer)
        if part is not None:
            return part.models
        if self.told is not None and stamp - self.at > REMEMBERED - REMEMBERED // 6:
            # Others may have dropped it by now; it was there long before. So it is the record's, and no longer a part: a write
            # that is overwritten from here on must not bring it once more.
            self.spent, self.told = self._untold(self.told), self.told._replace(spent={})
        return {}

    def _untold(self, told: Told | None) -> Models:
        """What was spent here since the last reset that the record did not have when it was last seen."""
        now = self.now
        if told is None or now is None or (told.reset, told.start) != (now.reset, now.start):
            return dict(self.spent)
        return _sum(self.spent, {}, told.spent)

    def _later(self, mine: Account | None, theirs: Recorded, known: Told, trusted: bool) -> int:
        """1 if the spend here began anew after that of the record, -1 if it was the other way round."""
        if self.reset != known.reset:
            return 1 if self.reset > known.reset else -1
        if mine is not None and mine.ref.window == theirs.window and theirs.end is not None and mine.end is not None:
            if mine.start >= theirs.end:
                return 1
            if theirs.start >= mine.end:
                return -1
            # Windows that overlap were opened by two at once: both count.
        return -1 if trusted and (theirs.foreign or self.reset != theirs.reset) else 0

    def _models(self, mine: Account, theirs: Recorded, there: Models, untold: Models, later: int) -> Models:
        if later > 0:
            models = mine.models
        else:
            models = _sum(theirs.models, untold if later < 0 else self.spent, {} if later < 0 else there)
        # Never less than nothing, whatever they took back meanwhile.
        return {model: spent for model, spent in models.items() if spent > 0}

    def ledger(self, writer: str, stamp: int) -> Ledger:
        """What the record is to say beside LiteLLM's keys."""
        recent = {other: part for other, part in self.others.items() if part.at > stamp - REMEMBERED}
        return Ledger(self.changed, self.reset, {**recent, writer: Part(stamp, dict(self.spent))})


def _recorded(row: Account | None, base: Account | None) -> Account | None:
    """The account, if there is something to record of it: not of a user of the default who has spent nothing yet."""
    if row is None or row.dropped:
        return None
    return row if row.pinned or row.models or row.epoch or base is not None else None


def _said(account: Account | None) -> tuple[object, ...]:
    if account is None:
        return ()
    limit = account.limit if account.pinned else None
    return account.id, account.epoch, account.pinned, limit, account.ref.window, _times(account), account.models


def _times(account: Account) -> tuple[int, ...]:
    return () if account.end is None else (account.created_at, account.start, account.end)


def _told(theirs: Recorded, there: Models) -> Told:
    return Told(there, theirs.changed, theirs.reset, 0 if theirs.dropped else began(theirs.start, theirs.end))


def _without(parts: Mapping[str, Part], writer: str) -> dict[str, Part]:
    return {other: part for other, part in parts.items() if other != writer}


def _taken(user: str, theirs: Recorded, row: Account | None) -> Account:
    """The account that a record stands for, in the place of `row`."""
    ref = Ref("user", user, "", theirs.window)
    if row is None:
        account = Account(ref, f"T:{uuid.uuid4().hex}", theirs.created_at, theirs.start, theirs.end)
    else:
        account = replace(row, ref=ref, dropped=False)
        if theirs.end is not None or row.end is not None:
            account.created_at, account.start, account.end = theirs.created_at, theirs.start, theirs.end
    account.pinned = not theirs.follows
    account.limit = None if theirs.follows else theirs.limit
    account.models = dict(theirs.models)
    account.spent = sum(account.models.values())
    return account


def _mind_corrections(account: Account, mine: Account) -> None:
    """Corrections of what was charged before are void where that is not there any more: the epoch says so."""
    less = any(account.models.get(model, 0) < spent for model, spent in mine.models.items())
    if less or account.start != mine.start:
        account.epoch = mine.epoch + 1
        account.alerted = 0


def _sum(first: Mapping[str, int], more: Mapping[str, int], less: Mapping[str, int]) -> Models:
    models = first.keys() | more.keys() | less.keys()
    sums = {model: first.get(model, 0) + more.get(model, 0) - less.get(model, 0) for model in models}
    return {model: amount for model, amount in sums.items() if amount}
