"""A store that did not answer when the program opened it. The first command that it answers opens it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litellm_budget_plugin.core.commands import Command, Reply
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.fork_safe_lock import ForkSafeLock, watch_forks
from litellm_budget_plugin.stores.protocol import Outcome, Store
from litellm_budget_plugin.stores.rows import Page, Rows


class LazyStore:
    """A stand-in for a networked store, called `name` in messages. `reopen` takes the seconds that it may use, and
    raises BudgetStoreUnavailable while the store is unreachable.
    """

    remote = True

    def __init__(self, name: str, reopen: Callable[[float], Store], timeout: float) -> None:
        self._name, self._reopen, self._timeout = name, reopen, timeout
        self._store: Store | None = None
        self._guard = ForkSafeLock()
        self._closed = False
        watch_forks(self)

    def _opened(self, timeout: float | None) -> Store:
        if self._store is not None:
            return self._store
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        return self._guard.run(self._name, seconds, self._open, seconds)

    def _open(self, seconds: float) -> Store:
        if self._closed:
            raise BudgetStoreError(f"{self._name}: this store was closed")
        if self._store is None:
            self._store = self._reopen(seconds)
        return self._store

    def before_fork(self) -> None:
        """Do nothing: a store that a thread is opening, the child opens for itself."""

    def after_fork(self, in_child: bool) -> None:
        """Free the lock in the child, where the thread that was opening the store does not exist."""
        if in_child:
            self._guard.after_fork(True)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        return self._opened(timeout).execute(command, timeout)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each."""
        return self._opened(timeout).execute_all(commands, timeout)

    def projects(self) -> list[str]:
        """Every project that has a row."""
        return self._opened(None).projects()

    def export(self, project: str, after: str, most: int) -> Page:
        """Some raw rows of a project."""
        return self._opened(None).export(project, after, most)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys."""
        self._opened(None).load(project, rows)

    def sync(self) -> None:
        """Make acknowledged charges survive a power cut."""
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        """Close the store, opened or not."""
        self._closed = True
        if self._store is not None:
            self._store.close()
