"""The only way to ask a store: it opens windows, notices an unreachable store, and informs metrics and alerts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from litellm_budget_plugin.core.commands import BaseCommand, Command, Granted, ReplyT_co, Reserve, Settle, Settled
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.breaker import Breaker
from litellm_budget_plugin.manager.observing import Observing
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask, ask_all


class Watch(Protocol):
    """A search for alerts. Any thread may call its methods, which only take notes. `runs_out` is when the project's own budgets run out, in
    seconds since 1970; infinity if they last, or if that is not known yet.
    """

    project: str
    runs_out: float

    def touched(self, command: Reserve | Settle) -> None:
        """Record that money was held or charged."""

    def failed(self, error: BudgetStoreError) -> None:
        """Record that the store did not answer."""


class StoreClient:
    """A store as this process uses it. `holds_money` says whether a call in flight holds money under an id."""

    def __init__(self, store: Store, holds_money: Callable[[str], bool]) -> None:
        self.store = store
        self.breaker = Breaker()
        self.observing = Observing(holds_money)
        self.watched: list[Watch] = []
        """The searches for alerts, one for each ledger that has alerts."""

    def reset(self) -> None:
        """Forget, in a forked child, whether the store was unreachable."""
        self.breaker = Breaker()

    def ask(self, command: BaseCommand[ReplyT_co], timeout: float, *, in_call: bool = False) -> ReplyT_co:
        """Return the reply within `timeout` seconds. `in_call` says that a call waits for it; then this fails at once while a networked
        store is known to be unreachable. Raises BudgetStoreError, BudgetInputError.
        """
        if in_call and self.store.remote:
            self.breaker.check()
        try:
            reply = ask(self.store, command, timeout)
        except BudgetStoreError as error:
            self._failed(error)
            raise
        self._answered((command,), (reply,))
        return reply

    def ask_all(self, commands: Sequence[Command], timeout: float) -> list[Outcome]:
        """Return the outcome of each command, in one round trip if the store can do that. Raises BudgetStoreError."""
        try:
            outcomes = ask_all(self.store, commands, timeout)
        except BudgetStoreError as error:
            self._failed(error)
            raise
        self._answered(commands, outcomes)
        return outcomes

    def sync(self) -> None:
        """Make all acknowledged changes survive a power cut. Raises BudgetStoreError."""
        try:
            self.store.sync()
        except BudgetStoreError as error:
            if self.observing.any:
                self.observing.failed(error)
            raise

    def _answered(self, commands: Sequence[BaseCommand[object]], outcomes: Sequence[object]) -> None:
        self.breaker.worked()
        if self.observing.any:
            for command, outcome in zip(commands, outcomes):
                self.observing.answered(command, outcome)
        if self.watched:
            for command, outcome in zip(commands, outcomes):
                if isinstance(outcome, (Granted, Settled)) and isinstance(command, (Reserve, Settle)):
                    for watch in self.watched:
                        watch.touched(command)

    def _failed(self, error: BudgetStoreError) -> None:
        if isinstance(error, BudgetStoreUnavailable):
            self.breaker.failed(error)
        if self.observing.any:
            self.observing.failed(error)
        for watch in self.watched:
            watch.failed(error)
