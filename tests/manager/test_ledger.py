"""The ledgers of one process: which of them share a store, for how long, and the data that they keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from litellm_budget_plugin import BudgetSettings
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, PutBudget, Read, Settle, Settled, Sweep, Swept
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.live_holds import LiveHold
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.store import SqliteStore

ALICE = Subject("user", "alice")
OpenLedger = Callable[..., BudgetLedger]


@pytest.fixture
def open_ledger() -> Iterator[OpenLedger]:
    opened: list[BudgetLedger] = []

    def make(**values: Any) -> BudgetLedger:
        opened.append(BudgetLedger(BudgetSettings(**{"project": "shop", "store_url": "memory://", **values})))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


def charge(ledger: BudgetLedger, cost: int = 5) -> None:
    reply = ledger.ask(Settle(new_id(), "shop", (ALICE,), (), cost, "m", defaults=ledger.defaults))
    assert isinstance(reply, Settled)


def spent(ledger: BudgetLedger) -> int:
    reply = ledger.ask(Read("shop", *ALICE, defaults=ledger.defaults))
    assert isinstance(reply, Accounts)
    return sum(state.spent for state in reply.accounts)


@pytest.mark.parametrize(
    "other", [{"store_timeout": 1.5}, {"journal": "off"}, {"journal": "elsewhere"}, {"journal_limit": 7}]
)
def test_each_ledger_keeps_its_own_time_out_and_journal(open_ledger: OpenLedger, other: dict[str, Any]) -> None:
    url = "sqlite:///ledger.db"
    first, second = open_ledger(store_url=url), open_ledger(store_url=url, **other)
    assert first.worker is not second.worker
    assert first.worker is open_ledger(store_url=url).worker
    charge(first)
    charge(second)
    assert spent(first) == spent(second) == 10


def test_memory_is_one_ledger_however_it_is_used(open_ledger: OpenLedger) -> None:
    first, second = open_ledger(), open_ledger(store_timeout=1.5)
    charge(first)
    assert spent(second) == 5


@pytest.mark.parametrize("url", ["memory://", "sqlite:///ledger.db"])
def test_a_ledger_that_is_closed_and_opened_again_during_a_call_is_the_same(open_ledger: OpenLedger, url: str) -> None:
    first = open_ledger(store_url=url)
    charge(first)
    first.worker.track("call", LiveHold("shop", None, lambda: None))
    first.close()
    second = open_ledger(store_url=url)
    first.worker.untrack("call")
    first.worker.flush()
    charge(second)
    assert spent(second) == 10
    assert first.worker is second.worker
    second.close()
    assert open_ledger(store_url=url).worker is not second.worker


def test_memory_forgets_the_marks_of_calls_that_are_long_over(
    open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger()
    for _ in range(50):
        charge(ledger)
    asked: list[Any] = []
    monkeypatch.setattr(ledger.client, "ask", lambda command, timeout: asked.append(command))
    ledger.worker._swept_at = -1e9
    ledger.worker._upkeep()
    [sweep] = [command for command in asked if isinstance(command, Sweep)]
    monkeypatch.undo()
    two_hours_later = time.time_ns() + 2 * 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: two_hours_later)
    assert ledger.ask(sweep) == Swept(0, 50, 0)
    assert spent(ledger) == 250


def test_what_was_reported_is_charged_once_however_late_it_is_reported_again(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    assert [ledger.reported.is_new("reported:batch-1") for _ in range(2)] == [True, False]


def test_a_budget_of_the_project_counts_for_every_user(open_ledger: OpenLedger) -> None:
    """Any process can set it, and it also counts in processes without a PROJECT_LIMIT."""
    ledger = open_ledger()
    assert ledger.principal("alice").subjects == (ALICE, Subject("project", "shop"))
    ledger.ask(PutBudget(new_id(), "shop", Subject("project", "shop"), limit=7))
    ledger.ask(Settle(new_id(), "shop", ledger.principal("bob").subjects, (), 7, "m", defaults=ledger.defaults))
    reply = ledger.ask(Read("shop", "project", "shop"))
    assert isinstance(reply, Accounts) and [(state.limit, state.spent) for state in reply.accounts] == [(7, 7)]


def test_a_file_is_not_looked_at_beside_a_command(open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork closes the file inside the guard, and this also removes its -wal file."""
    store = open_ledger(store_url="sqlite:///ledger.db").store
    assert isinstance(store, SqliteStore)
    inside: list[bool] = []
    look = store._look
    monkeypatch.setattr(store, "_look", lambda: (inside.append(store._guard._inside), look()))
    store.sync()
    assert inside == [True]


def test_a_child_does_not_use_a_store_that_its_parent_has_let_go_of() -> None:
    """A fork can happen after the store was closed and before it is forgotten."""
    worker = StoreWorker(open_store("memory://"), 1.0)
    worker.release()
    worker.reset()
    assert not worker.retain()


def test_runs_that_ended_long_ago_are_forgotten_now_and_then(open_ledger: OpenLedger) -> None:
    """A ledger in memory also forgets runs after RETENTION, and not with the marks, which it keeps for an hour."""
    ledger = open_ledger(retention=3)
    hour = 3600 * 10**6
    now = time.time_ns() // 1000
    for run, age in (("old", 73 * hour), ("young", 71 * hour)):
        ledger.ask(PutBudget(new_id(), "shop", Subject("run", run), window="none", limit=7, created_at=now - age))
    ledger.worker._swept_at = -1e9
    ledger.worker._upkeep()
    reply = ledger.ask(Read("shop", "run"))
    assert [state.ref.subject for state in reply.accounts] == ["young"]
