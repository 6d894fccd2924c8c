"""The interface to the ledger's rows, and the unit of work in which a command stages its changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey


@dataclass(slots=True)
class Changes:
    """The changes of one command: rows to store (None: to delete), and amounts to add to the totals."""

    accounts: dict[Ref, Account | None] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    usage: dict[UsageKey, Usage] = field(default_factory=dict)


class RowStore(Protocol):
    """The rows that one command works on. Reads return copies; `write` applies all of the changes or none."""

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""

    def hold(self, project: str, hold: str) -> Hold | None:
        """A hold or a mark by its id."""

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""

    def open_holds(self, project: str) -> list[Hold]:
        """Every open hold."""

    def usage(self, project: str, key: UsageKey) -> Usage | None:
        """One row of totals."""

    def write(self, project: str, changes: Changes) -> None:
        """Apply the changes in one step."""


class FullRowStore(RowStore, Protocol):
    """All rows of one or many projects, with listing and upkeep."""

    def subjects(self, project: str, scope: str, after: str, most: int) -> list[str]:
        """Up to `most` ids with an account in `scope` that follow `after`, in order of their Unicode code points."""

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""

    def forget(self, project: str, before: int) -> int:
        """Delete marks closed before a time; returns how many."""

    def fold(self, project: str, before_day: int) -> int:
        """Add the totals of earlier days to day 0; returns how many rows went."""


class UnitOfWork:
    """The rows that one command has loaded and changed. Nothing reaches the row store before `save`."""

    __slots__ = ("_made", "_subjects", "changes", "now", "project", "store")

    def __init__(self, store: RowStore, project: str, now: int) -> None:
        self.store = store
        self.project = project
        self.now = now
        self.changes = Changes()
        self._made = 0
        # Keyed by a Subject, or by the part of a Ref that equals one.
        self._subjects: dict[tuple[str, str], dict[Ref, Account]] = {}

    def accounts(self, subject: Subject) -> dict[Ref, Account]:
        """The subject's accounts as this command sees them."""
        rows = self._subjects.get(subject)
        if rows is None:
            rows = {account.ref: account for account in self.store.accounts(self.project, subject)}
            self._subjects[subject] = rows
        return rows

    def account(self, ref: Ref) -> Account | None:
        """One account as this command sees it."""
        rows = self._subjects.get(ref[:2])
        return (self.accounts(Subject(ref.scope, ref.subject)) if rows is None else rows).get(ref)

    def new_row_id(self, command: str) -> str:
        """A new id for a row that `command` creates; a command may create several."""
        self._made += 1
        return f"{command}:{self._made}"

    def put(self, account: Account) -> None:
        """Stage a new or changed account."""
        ref = account.ref
        rows = self._subjects.get(ref[:2])
        (self.accounts(Subject(ref.scope, ref.subject)) if rows is None else rows)[ref] = account
        self.changes.accounts[ref] = account

    def drop(self, ref: Ref) -> None:
        """Stage the deletion of an account."""
        self.accounts(Subject(ref.scope, ref.subject)).pop(ref, None)
        self.changes.accounts[ref] = None

    def hold(self, hold: str) -> Hold | None:
        """A hold or mark as this command sees it."""
        staged = self.changes.holds.get(hold)
        return staged if staged is not None else self.store.hold(self.project, hold)

    def put_hold(self, hold: Hold) -> None:
        """Stage a new or changed hold."""
        self.changes.holds[hold.id] = hold

    def due(self, most: int | None) -> Iterable[Hold]:
        """Open holds whose time limit has come, as this command sees them."""
        due = self.store.due(self.project, self.now, most)
        return (hold for hold in self._current(due) if hold.at <= self.now) if due else ()

    def open_holds(self) -> Iterable[Hold]:
        """Every open hold, as this command sees it."""
        return self._current(self.store.open_holds(self.project))

    def _current(self, holds: list[Hold]) -> Iterable[Hold]:
        for hold in holds:
            staged = self.changes.holds.get(hold.id, hold)
            if staged.state == "open":
                yield staged

    def usage(self, key: UsageKey) -> Usage:
        """A row of totals as this command sees it."""
        recorded = self.store.usage(self.project, key) or Usage()
        return recorded.plus(self.changes.usage.get(key, Usage()))

    def add_usage(self, key: UsageKey, usage: Usage) -> None:
        """Stage an addition to the totals."""
        staged = self.changes.usage.get(key)
        self.changes.usage[key] = usage if staged is None else staged.plus(usage)

    def save(self) -> None:
        """Write the staged changes."""
        changes = self.changes
        if changes.accounts or changes.holds or changes.usage:
            self.store.write(self.project, changes)
