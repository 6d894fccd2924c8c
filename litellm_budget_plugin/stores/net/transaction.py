"""The rows that the rules read and change while they run beside the server: a `core.row_store.RowStore` that writes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.row_store import Changes

if TYPE_CHECKING:
    from litellm_budget_plugin.stores.net.engine import Seen, View


class Reader(Protocol):
    """The reads of rows that a transaction was not given: one round trip for each call, under the transaction's lock."""

    def subjects(self, subjects: Sequence[Subject]) -> Mapping[Subject, Seen]:
        """The accounts and versions of all these subjects."""

    def holds(self, holds: Sequence[str]) -> Mapping[str, Hold | None]:
        """The holds and marks with these ids."""

    def due(self, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""

    def open_holds(self) -> list[Hold]:
        """Every open hold, in the order of the ids."""

    def usage(self, key: UsageKey) -> Usage | None:
        """One row of totals."""


class Transaction:
    """The rows read so far, and the `changes` of one command or of several, one after the other; `now` is in microseconds."""

    def __init__(self, view: View, reader: Reader) -> None:
        self.now = view.now
        self.changes = Changes()
        self._due = view.due
        self._seen: dict[Subject, Seen] = dict(view.subjects)
        self._holds: dict[str, Hold | None] = dict(view.holds)
        self._reader = reader

    def accounts(self, project: str, subject: Subject) -> list[Account]:  # noqa: ARG002  # the protocol's
        """Every account of a subject, as the commands so far have left it."""
        rows = {account.ref: account for account in self.read(subject)}
        rows.update({ref: account for ref, account in self.changes.accounts.items() if ref[:2] == subject})  # type: ignore[misc]
        return [account.copy() for account in rows.values() if account is not None]

    def read(self, subject: Subject) -> tuple[Account, ...]:
        """Every account of a subject, as it was read."""
        return self._of(subject).accounts

    def _of(self, subject: Subject) -> Seen:
        if subject not in self._seen:
            self._seen.update(self._reader.subjects([subject]))
        return self._seen[subject]

    def hold(self, project: str, hold: str) -> Hold | None:  # noqa: ARG002
        """A hold or a mark by its id, as the commands so far have left it."""
        if (changed := self.changes.holds.get(hold)) is not None:
            return changed.copy()
        if hold not in self._holds:
            self._holds.update(self._reader.holds([hold]))
        found = self._holds[hold]
        return None if found is None else found.copy()

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:  # noqa: ARG002
        """Open holds whose time limit has come, in the order of (limit, id)."""
        if not self._due:
            return []
        return self._with_subjects(self._reader.due(now, most))

    def open_holds(self, project: str) -> list[Hold]:  # noqa: ARG002
        """Every open hold."""
        return self._with_subjects(self._reader.open_holds())

    def _with_subjects(self, holds: list[Hold]) -> list[Hold]:
        """The holds as the commands so far have left them, after reading the rows that they are held on together."""
        named = {Subject(leg.scope, leg.subject) for hold in holds for leg in hold.legs}
        missing = sorted(named - self._seen.keys())
        if missing:
            self._seen.update(self._reader.subjects(missing))
        self._holds.update({hold.id: hold for hold in holds})
        present = [self.changes.holds.get(hold.id, hold) for hold in holds]
        return [hold.copy() for hold in present if hold.state == "open"]

    def usage(self, project: str, key: UsageKey) -> Usage | None:  # noqa: ARG002
        """One row of totals."""
        recorded, added = self._reader.usage(key), self.changes.usage.get(key)
        return recorded if added is None else (recorded or Usage()).plus(added)

    def write(self, project: str, changes: Changes) -> None:  # noqa: ARG002
        """Take the changes of one more command: the engine writes all of them together."""
        self.changes.accounts.update(changes.accounts)
        self.changes.holds.update(changes.holds)
        for key, usage in changes.usage.items():
            self.changes.usage[key] = self.changes.usage.get(key, Usage()).plus(usage)

    def versions(self) -> dict[Subject, int]:
        """The new version of each subject whose accounts have changed in more than their sums."""
        changed: dict[Subject, int] = {}
        for ref, account in self.changes.accounts.items():
            subject = Subject(ref.scope, ref.subject)
            if subject not in changed and shape_of(account) != shape_of(self.recorded(ref)):
                # A counter could give a subject that was deleted and made again a version that it had before.
                changed[subject] = new_version()
        return changed

    def recorded(self, ref: Ref) -> Account | None:
        """An account as it was read; its entry in `changes` replaces it."""
        return next((one for one in self._of(Subject(ref.scope, ref.subject)).accounts if one.ref == ref), None)

    def recorded_hold(self, hold: str) -> Hold | None:
        """A hold or mark as it was read; None also for one that was not read, which is written unconditionally."""
        return self._holds.get(hold)


def new_version() -> int:
    """A version that no rows of a subject had before. `random` is not used: a fork that Python does not see copies its state."""
    return int.from_bytes(os.urandom(6), "big") + 1


def shape_of(account: Account | None) -> object:
    """The part of an account that a version covers: everything but its sums. Only for comparison by equality."""
    return None if account is None else _shape(account)


_shape = attrgetter(*(each.name for each in fields(Account) if each.name not in ("spent", "held", "models")))
