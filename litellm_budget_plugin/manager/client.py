"""The one way to ask a store: windows are opened, a store that is away is noticed, and metrics are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from litellm_budget_plugin.core.commands import BaseCommand, Command, Granted, ReplyT_co, Reserve, Settle, Settled
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.breaker import Breaker
from litellm_budget_plugin.manager.observing import Observing
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask, ask_all


class Watch(Protocol):
    """Looks for alerts. Any thread may tell it; it only takes notes. `runs_out` is when the project's own budgets do, in seconds since
    1970; infinity if they last, or nobody has looked yet.
    """

    project: str
    runs_out: float

    def touched(self, command: Reserve | Settle) -> None:
        """Something was held or charged."""

    def failed(self, error: BudgetStoreError) -> None:
        """The store did not answer."""


class StoreClient:
    """A store as this process uses it. `holds_money` says whether a running call holds money under an id."""

    def __init__(self, store: Store, holds_money: Callable[[str], bool]) -> None:
        self.store = store
        self.breaker = Breaker()
        self.observing = Observing(holds_money)
        self.watched: list[Watch] = []
        """Those who look for alerts."""

    def reset(self) -> None:
        """In a forked child: forget whether the store was away."""
        self.breaker = Breaker()

    def ask(self, command: BaseCommand[ReplyT_co], timeout: float, *, in_call: bool = False) -> ReplyT_co:
        """The reply within `timeout` seconds. `in_call` says that a call waits for it: while a networked store is known to be away
        this fails at once. Raises BudgetStoreError, BudgetInputError.
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
        """The outcome of each command; one round trip where the store can. Raises BudgetStoreError."""
        try:
            outcomes = ask_all(self.store, commands, timeout)
        except BudgetStoreError as error:
            self._failed(error)
            raise
        self._answered(commands, outcomes)
        return outcomes

    def sync(self) -> None:
        """Make everything that was acknowledged survive a power cut. Raises BudgetStoreError."""
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
