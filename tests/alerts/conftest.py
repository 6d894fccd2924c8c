"""Fixtures: a receiver of webhooks, and a ledger whose clock and searches for alerts a test controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import (
    BaseCommand,
    Granted,
    PutBudget,
    Read,
    Refused,
    ReplyT_co,
    Reserve,
    Settle,
)
from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.watch import AlertWatch
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.memory import MemoryStore
from litellm_budget_plugin.stores.protocol import Store
from tests.alerts.receiver import Receiver

NOON = 20_000 * DAY + DAY // 2
MINUTE = 60_000_000


class Clocked:
    """A store whose clock a test sets."""

    def __init__(self, store: Store) -> None:
        self.now = NOON
        self.failure: Exception | None = None
        self.commands: list[object] = []
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def execute(self, command: Any, timeout: float | None = None) -> Any:
        self.commands.append(command)
        if self.failure is not None:
            raise self.failure
        return self._store.execute(replace(command, now=self.now), timeout)

    def execute_all(self, commands: Any, timeout: float | None = None) -> Any:
        return [self.execute(command, timeout) for command in commands]


class Process:
    """One process's alerts. Its threads do not run; `tick` does their work."""

    def __init__(self, store: Clocked, on_alert: Callable[[Alert], object] | None = None, **values: Any) -> None:
        self.settings = BudgetSettings(store_url="memory://", project="p", **values)
        self.store, self.sent = store, list[Alert]()
        self.worker = StoreWorker(store, 1.0)
        self.worker.ensure_running = lambda: None  # type: ignore[method-assign]
        self.client = self.worker.client
        self.policies = Policies(self.settings)
        self.watch = AlertWatch(
            self.settings, self.policies, self.worker, 1.0, on_alert or self.sent.append, lambda: store.now / 1e6
        )
        self.watch.sender._start = lambda: None  # type: ignore[method-assign]
        self.client.watched = [self.watch]

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        return self.client.ask(command, 1.0)

    def defaults(self, *subjects: Subject) -> Any:
        return self.policies.current().defaults_of(subjects)

    def hold(self, usd: str, *subjects: Subject, hold: str | None = None) -> str:
        hold = hold or new_id()
        named = subjects or (Subject("user", "alice"),)
        want = Amounts(charge_nanos(usd), 1, 10)
        reply = self.ask(Reserve(hold, "p", named, ("gpt",), want, MINUTE, defaults=self.defaults(*named)))
        if isinstance(reply, Refused):
            self.watch.refused(reply.account, self.defaults(*named))
        else:
            assert isinstance(reply, Granted)
        return hold

    def charge(self, usd: str, *subjects: Subject, hold: str | None = None) -> None:
        named = subjects or (Subject("user", "alice"),)
        self.ask(
            Settle(hold or new_id(), "p", named, ("gpt",), charge_nanos(usd), "gpt", 10, defaults=self.defaults(*named))
        )

    def block(self, user: str) -> None:
        subject = Subject("user", user)
        self.ask(PutBudget(new_id(), "p", subject, blocked=True, defaults=self.defaults(subject)))

    def tick(self, seconds: float = 1.0) -> None:
        """Move the clock, and do the due work of both threads."""
        self.store.now += round(seconds * 1e6)
        self.watch.run()
        self.watch.sender._step(1.0)

    def said(self) -> list[tuple[str, str | None, int | None]]:
        """Return the kind, the subject and the threshold of each sent alert."""
        return [(alert.kind, alert.subject, alert.threshold) for alert in self.sent]

    def claims(self) -> list[str]:
        return [state.ref.subject for state in self.ask(Read("p", "alert")).accounts]


@pytest.fixture
def store() -> Clocked:
    return Clocked(MemoryStore(test_clock=True))


@pytest.fixture
def process(store: Clocked) -> Callable[..., Process]:
    """A function that creates a process on the test's ledger."""
    return lambda *given, **values: Process(store, *given, **values)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()
