"""The ledger in this process's memory: exact, fast, and gone with the process."""

from __future__ import annotations

from collections.abc import Sequence

from litellm_budget_plugin.core.commands import Command, Reply
from litellm_budget_plugin.core.ledger import DictBook, apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.clock import clock
from litellm_budget_plugin.stores.guard import Guard, watch_forks
from litellm_budget_plugin.stores.protocol import Outcome, one_by_one

_NAME = "memory://"


class MemoryStore:
    """A ledger of its own, shared by the threads of this process. A forked child goes on with a copy of its own."""

    remote = False

    def __init__(self, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._book: DictBook | None = DictBook()
        self._now = clock(test_clock)
        self._timeout = timeout
        self._guard = Guard()
        self._paused = False
        watch_forks(self)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:  # noqa: ARG002  # the contract's
        """Apply a command and answer it. There is nobody outside to wait for: `timeout` has no meaning here."""
        return self._guard.run(_NAME, self._timeout, self._apply, command)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each."""
        return one_by_one(self, commands, timeout)

    def _apply(self, command: Command) -> Reply:
        if self._book is None:
            raise BudgetStoreError(f"{_NAME}: this store was closed")
        return apply(self._book, command, self._now(command))

    def sync(self) -> None:
        """Nothing here survives this process."""

    def close(self) -> None:
        """Forget everything."""
        self._book = None

    def before_fork(self) -> None:
        """Wait for a command to end, for a child that starts with half a change would keep it."""
        self._paused = self._guard.pause()

    def after_fork(self, in_child: bool) -> None:
        """Let the commands go on."""
        if in_child:
            self._guard.renew()
        elif self._paused:
            self._guard.resume()


def open_memory(rest: str, *, test_clock: bool, timeout: float) -> MemoryStore:
    """The store that `memory://` names. Raises BudgetInputError if something follows it."""
    if rest:
        raise BudgetInputError(
            f"memory:// takes no name, got {rest!r}: each opening is a ledger of its own; "
            "processes share one through sqlite:///file.db"
        )
    return MemoryStore(test_clock=test_clock, timeout=timeout)
