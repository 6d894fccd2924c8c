"""An engine in plain dictionaries: a short description of what a server must do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.stores.net.engine import Add, Seen, View
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.rows import Page, Rows, load

T = TypeVar("T")


class DictEngine:
    """An engine shared by several stores, like a server; `now` is always a test's."""

    name = "dict"

    def __init__(self) -> None:
        self.book = DictRowStore()
        self._versions: dict[tuple[str, Subject], int] = {}
        self.added = self.refused = self.transacted = self.viewed = 0
        self.ahead = 0
        """The lead of its clock over the time it is given, in microseconds."""
        self.meanwhile: Callable[[], object] | None = None
        """An action of another client, done once after a view."""

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        """Apply steps up to the first whose guard fails."""
        for place, add in enumerate(adds):
            if not self._holds(add):
                self.refused += 1
                return place
            self._apply(add)
            self.added += 1
        return len(adds)

    def _account(self, project: str, ref: Ref) -> Account:
        [found] = [row for row in self.book.accounts(project, Subject(ref.scope, ref.subject)) if row.ref == ref]
        return found

    def _holds(self, add: Add) -> bool:
        assert add.now is not None
        now = add.now + self.ahead
        if not add.since <= now < add.until:
            return False
        if any(self._versions.get((add.project, subject), 0) != version for subject, version in add.subjects):
            return False
        for hold, expected in add.holds:
            known = self.book.hold(add.project, hold.id)
            as_known = known and (known.state, known.amounts, known.legs)
            if as_known != (expected and ("open", expected.amounts, expected.legs)):
                return False
        for each in add.sums:
            account = self._account(add.project, each.ref)
            spent, held = account.spent + each.spent, account.held + each.held
            if each.known is not None and (account.spent, account.held) != each.known:
                return False
            if each.most is not None and spent + held > each.most:
                return False
        return True

    def _apply(self, add: Add) -> None:
        assert add.now is not None
        accounts: dict[Ref, Account | None] = {}
        for each in add.sums:
            account = self._account(add.project, each.ref)
            account.charge(each.spent, each.model)
            account.held += each.held
            accounts[each.ref] = account
        holds = {mark: Hold(mark, "alias", add.now) for mark in add.marks}
        for hold, _ in add.holds:
            known = self.book.hold(add.project, hold.id)
            at = known.at if known is not None and hold.state == "open" else add.now + hold.at
            holds[hold.id] = replace(hold, at=at)
        self.book.write(add.project, Changes(accounts, holds, dict(add.usage)))

    def _seen(self, project: str, subjects: Iterable[Subject]) -> dict[Subject, Seen]:
        return {
            subject: Seen(self._versions.get((project, subject), 0), tuple(self.book.accounts(project, subject)))
            for subject in subjects
        }

    def view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        """Rows of a project."""
        assert now is not None
        now += self.ahead
        self.viewed += 1
        due = bool(self.book.due(project, now, 1))
        view = View(now, due, self._seen(project, subjects), {hold: self.book.hold(project, hold) for hold in holds})
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return view

    def transact(
        self,
        project: str,
        subjects: Sequence[Subject],
        holds: Sequence[str],
        now: int | None,
        work: Callable[[Transaction], T],
        deadline: float,
    ) -> T:
        """Return the result of `work`."""
        self.transacted += 1
        transaction = Transaction(self.view(project, subjects, holds, now, deadline), _Reader(self, project))
        found = work(transaction)
        for subject, version in transaction.versions().items():
            self._versions[project, subject] = version
        self.book.write(project, transaction.changes)
        return found

    def page(
        self, project: str, scope: str, after: str, most: int, now: int | None, deadline: float
    ) -> tuple[View, list[str]]:
        """A page of subjects."""
        ids = self.book.subjects(project, scope, after, most)
        return self.view(project, [Subject(scope, one) for one in ids], (), now, deadline), ids

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int, deadline: float
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals."""
        return self.book.usage_rows(project, scope, subject, since, until)

    def forget(self, project: str, before: int, deadline: float) -> int:
        """Delete marks."""
        return self.book.forget(project, before)

    def fold(self, project: str, before_day: int, deadline: float) -> int:
        """Fold totals."""
        return self.book.fold(project, before_day)

    def projects(self, deadline: float) -> list[str]:
        """Every project."""
        return sorted(self.book.projects())

    def export(self, project: str, after: str, most: int, deadline: float) -> Page:
        """Not supported."""
        raise NotImplementedError

    def load(self, project: str, rows: Rows, deadline: float) -> None:
        """Put rows in place of those with the same keys."""
        load(self.book, project, rows)

    def close(self) -> None:
        """Do nothing."""


class _Reader:
    def __init__(self, engine: DictEngine, project: str) -> None:
        self._engine, self._project = engine, project

    def subjects(self, subjects: Sequence[Subject]) -> Mapping[Subject, Seen]:
        return self._engine._seen(self._project, subjects)

    def holds(self, holds: Sequence[str]) -> Mapping[str, Hold | None]:
        return {hold: self._engine.book.hold(self._project, hold) for hold in holds}

    def due(self, now: int, most: int | None) -> list[Hold]:
        return self._engine.book.due(self._project, now, most)

    def open_holds(self) -> list[Hold]:
        return self._engine.book.open_holds(self._project)

    def usage(self, key: UsageKey) -> Usage | None:
        return self._engine.book.usage(self._project, key)
