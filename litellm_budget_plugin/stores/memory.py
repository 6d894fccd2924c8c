"""The ledger in this process's memory: exact, fast, and gone with the process."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence

from litellm_budget_plugin.core.accounts import Account, Hold, Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import Command, Reply
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.clock import clock
from litellm_budget_plugin.stores.fork_safe_lock import ForkSafeLock, watch_forks
from litellm_budget_plugin.stores.protocol import Outcome, one_by_one
from litellm_budget_plugin.stores.rows import Page, Rows, load

_NAME = "memory://"


class MemoryStore:
    """A separate ledger, shared by the threads of this process. A forked child continues with its own copy."""

    remote = False

    def __init__(self, *, test_clock: bool = False, timeout: float = 2.0, now: Callable[[], int] | None = None) -> None:
        """`now` returns the time, in microseconds since 1970-01-01 UTC, and replaces the machine's clock."""
        self._book: DictRowStore | None = DictRowStore()
        self._now = clock(test_clock) if now is None else lambda _: now()
        self._timeout = timeout
        self._guard = ForkSafeLock()
        self._exporting: dict[str, list[Subject | str | UsageKey]] = {}
        # Without this, a child could start with half a change, and keep it.
        watch_forks(self._guard)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:  # noqa: ARG002  # the contract's
        """Apply a command and answer it. `timeout` has no effect: nothing outside of this process can keep the store busy."""
        return self._guard.run(_NAME, self._timeout, self._apply, command)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each."""
        return one_by_one(self, commands, timeout)

    def _apply(self, command: Command) -> Reply:
        return apply(self._open_book(), command, self._now(command))

    def _open_book(self) -> DictRowStore:
        if self._book is None:
            raise BudgetStoreError(f"{_NAME}: this store was closed")
        return self._book

    def projects(self) -> list[str]:
        """Every project that has a row, sorted."""
        return self._guard.run(_NAME, self._timeout, lambda: sorted(self._open_book().projects()))

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project, in the order of their keys; `after` is the position of the last one in that order, as JSON."""
        return self._guard.run(_NAME, self._timeout, self._export, project, after, most)

    def _export(self, project: str, after: str, most: int) -> Page:
        book = self._open_book()
        # Sorted once for all pages. A row made meanwhile may be missing from them; a row deleted meanwhile is skipped.
        if not after or project not in self._exporting:
            self._exporting[project] = book.keys(project)
        keys = self._exporting[project]
        first = bisect_right(keys, json.loads(after), key=_place) if after else 0
        some = keys[first : first + most]
        rows = rows_of(book, project, some)
        if first + most < len(keys):
            return Page(rows, json.dumps(_place(some[-1])))
        del self._exporting[project]
        return Page(rows, None)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys."""
        self._guard.run(_NAME, self._timeout, lambda: load(self._open_book(), project, rows))

    def sync(self) -> None:
        """Do nothing: no data here survives this process."""

    def close(self) -> None:
        """Forget everything."""
        self._book = None


def _place(key: Subject | str | UsageKey) -> list[int | str]:
    """A sort key that orders the keys as `DictRowStore.keys` does."""
    if isinstance(key, str):
        return [1, key]
    return [0 if isinstance(key, Subject) else 2, *key]


def rows_of(book: DictRowStore, project: str, keys: Sequence[Subject | str | UsageKey]) -> Rows:
    """The rows of a book that have these keys, unchanged."""
    accounts, holds, totals = list[Account](), list[Hold](), list[tuple[UsageKey, Usage]]()
    for key in keys:
        if isinstance(key, Subject):
            accounts += sorted(book.accounts(project, key), key=lambda account: account.ref)
        elif isinstance(key, UsageKey):
            usage = book.usage(project, key)
            totals += [] if usage is None else [(key, usage)]
        else:
            hold = book.hold(project, key)
            holds += [] if hold is None else [hold]
    return Rows(tuple(accounts), tuple(holds), tuple(totals))


def open_memory(_: str, rest: str, *, test_clock: bool, timeout: float) -> MemoryStore:
    """The store at `memory://`. Raises BudgetInputError if anything follows it."""
    if rest:
        raise BudgetInputError(
            f"memory:// takes no name, got {rest!r}: each opening is a ledger of its own; "
            "processes share one through sqlite:///file.db"
        )
    return MemoryStore(test_clock=test_clock, timeout=timeout)
