"""Failures of the endpoint, restarts, forks: no charge is lost and none counts twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    DropBudget,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Settle,
    Settled,
    Sweep,
)
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.stores import hosted
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.rows import Rows
from tests.stores.desk import ALICE, LIMIT, calls_of, charge_of, hold_of
from tests.stores.hosted.desk import alice, later, of
from tests.stores.hosted.endpoint import Endpoint
from tests.stores.processes import Child

Opener = Callable[..., HostedStore]
BOB = (Subject("user", "bob"),)


def spent(endpoint: Endpoint, user: str = "alice") -> Any:
    return endpoint.data["p"][user].get("current_cost", 0)


def refused(store: HostedStore, endpoint: Endpoint, command: Any) -> None:
    """Have a command fail because the endpoint cannot write."""
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable, match="the disk is full"):
        store.execute(command)
    endpoint.refuses_writes = False


def lost(store: HostedStore, endpoint: Endpoint, command: Any) -> None:
    """Have a command fail because the answer to its write is lost."""
    endpoint.deaf = True
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(command)
    endpoint.deaf = False


@pytest.mark.parametrize("seconds", [60.0, -1.0])
def test_a_write_whose_answer_was_lost_counts_once(
    store: HostedStore, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Also when it was sent long before the next read."""
    monkeypatch.setattr(hosted, "_LATE_SECONDS", seconds)
    lost(store, endpoint, charge_of("h"))
    assert spent(endpoint) == 10e-9
    assert store.execute(charge_of("h")) == Settled("h")
    assert spent(endpoint) == 10e-9
    assert len(store._projects["p"].unanswered) == (seconds > 0)


def test_threads_that_waited_look_at_what_became_of_a_write(store: HostedStore, endpoint: Endpoint) -> None:
    """They waited since before the last read. It is fresh enough for them, unless a later write was not answered."""
    store.execute(charge_of("before"))
    charges = [charge_of(f"h{number}", usd=1) for number in range(20)]
    endpoint.deaf = True
    for charge in charges:
        store._alone(store._apply, [charge])
        with pytest.raises(BudgetStoreUnavailable):
            store._exchange_with(store._write, store._projects["p"], 0.0, time.monotonic() + 2.0)
        endpoint.deaf, endpoint.away = False, True
    assert spent(endpoint) == 11e-9
    endpoint.away = False
    store.execute_all(charges)
    assert spent(endpoint) == 30e-9
    assert alice(store).spent == 30


def test_a_write_whose_answer_was_lost_counts_once_although_others_wrote_since(
    opened: Opener, endpoint: Endpoint
) -> None:
    one, two = opened(), opened()
    lost(one, endpoint, charge_of("h"))
    two.execute(Settle("other", "p", BOB, (), 5, "m", defaults=LIMIT))
    one.execute(charge_of("h"))
    assert (spent(endpoint), spent(endpoint, "bob")) == (10e-9, 5e-9)


def test_a_write_that_arrives_after_the_next_one_takes_nothing_away(store: HostedStore, endpoint: Endpoint) -> None:
    """Neither from the user of that charge, nor from another one."""
    store.execute(Settle("b 1", "p", BOB, (), 1, "m", defaults=LIMIT))
    endpoint.trouble = ["none", "late", "late", "late"]
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(charge_of("late", usd=3))
    store.execute_all([charge_of("h", usd=4), Settle("b 2", "p", BOB, (), 5, "m", defaults=LIMIT)])
    assert (spent(endpoint), spent(endpoint, "bob")) == (3e-9, 1e-9)
    store.execute(charge_of("next", usd=10))
    assert (spent(endpoint), spent(endpoint, "bob")) == (17e-9, 6e-9)
    assert alice(store).spent == 17


def test_what_could_not_be_written_goes_with_the_next_write(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(charge_of("first"))
    refused(store, endpoint, charge_of("h"))
    # It is applied in this process, but acknowledged only when it is at the endpoint.
    refused(store, endpoint, charge_of("h"))
    store.execute(charge_of("next", usd=1))
    assert spent(endpoint) == 21e-9
    assert store.execute(charge_of("h")) == Settled("h")
    assert spent(endpoint) == 21e-9


def test_what_could_not_be_written_goes_with_the_next_sync(store: HostedStore, endpoint: Endpoint) -> None:
    refused(store, endpoint, charge_of("h"))
    store.sync()
    assert spent(endpoint) == 10e-9


@pytest.mark.parametrize("stale", [True, False])
def test_an_endpoint_that_is_away_acknowledges_nothing(store: HostedStore, endpoint: Endpoint, stale: bool) -> None:
    store.execute(Read("p", "user"))
    if stale:
        later(store)
    endpoint.away = True
    for command in (hold_of("a"), charge_of("b")) if stale else (charge_of("b"),):
        with pytest.raises(BudgetStoreUnavailable, match="503"):
            store.execute(command)
    endpoint.away = False
    assert store.execute(hold_of("a")) == Granted("a", Amounts(10))
    assert store.execute(charge_of("b")) == Settled("b")
    assert spent(endpoint) == 10e-9


def test_a_drop_and_a_limit_survive_a_write_that_failed(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    one.execute(Settle("b", "p", BOB, (), 5, "m", defaults=LIMIT))
    put, drop = PutBudget("c", "p", ALICE[0], limit=50, defaults=LIMIT), DropBudget("d", "p", BOB[0])
    for command in (put, drop):
        refused(one, endpoint, command)
    two.execute(charge_of("theirs", usd=7))
    for command in (put, drop):
        one.execute(command)
    assert "bob" not in endpoint.data["p"]
    assert endpoint.data["p"]["alice"]["total_budget"] == 50e-9 and spent(endpoint) == 107e-9
    assert (alice(two).limit, alice(two).spent) == (50, 107)


def test_a_restart_begins_with_what_was_acknowledged(opened: Opener) -> None:
    opened().execute(charge_of("h", usd=123))
    assert alice(opened()).spent == 123


def test_the_floor_of_an_expired_hold_is_written_by_the_next_sync(opened: Opener, endpoint: Endpoint) -> None:
    store = opened(test_clock=True)
    store.execute(hold_of("h", floor=4, now=1_000_000))
    store.execute(Read("p", "user", now=100_000_000))
    store.sync()
    assert spent(endpoint) == 4e-9
    store.execute(Release("h", "p", now=101_000_000))
    assert spent(endpoint) == 0


def test_a_floor_given_back_and_a_reset_at_once_leave_nothing_below_zero(opened: Opener, endpoint: Endpoint) -> None:
    store = opened(test_clock=True)
    store.execute(hold_of("h", floor=4, now=1_000_000))
    store.execute(Sweep("p", DAY, DAY, now=100_000_000))
    store.execute(Release("other", "p", now=100_000_000))
    assert spent(endpoint) == 4e-9
    refused(store, endpoint, Release("h", "p", now=101_000_000))
    endpoint.data["p"]["alice"].update(current_cost=0, model_cost={})
    store.sync()
    assert spent(endpoint) == 0
    store.execute(charge_of("next", usd=5, now=102_000_000))
    assert spent(endpoint) == 5e-9


def test_sync_reads_ahead_only_for_calls_that_go_on(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(hold_of("a"))
    store.execute(hold_of("b"))
    endpoint.asked.clear()
    store.sync()
    assert endpoint.asked == []
    later(store)
    store.sync()
    assert endpoint.asked == ["/get_budget"]
    later(store)
    store.sync()
    assert endpoint.asked == ["/get_budget"]


def test_a_command_ends_within_its_time(opened: Opener, endpoint: Endpoint) -> None:
    endpoint.stalled = threading.Event()
    store = opened(timeout=30.0)

    def charge(name: str) -> None:
        with pytest.raises(BudgetStoreUnavailable):
            store.execute(charge_of(name), 0.2)

    begun = time.monotonic()
    threads = [threading.Thread(target=charge, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 5.0
    endpoint.stalled.set()
    for name in "abc":
        store.execute(charge_of(name))
    assert spent(endpoint) == 30e-9


def test_an_interrupt_while_a_record_is_brought_in_counts_nothing_twice(
    opened: Opener, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("a", usd=100))
    two.execute(charge_of("b", usd=7))
    refused(one, endpoint, charge_of("c", usd=1))
    two.execute(charge_of("d", usd=20))
    write, interrupted = one._book.write, False

    def interrupt(*args: Any) -> None:
        nonlocal interrupted
        write(*args)
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    later(one)
    monkeypatch.setattr(one._book, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one.execute(Read("p", "user"))
    one.sync()
    assert spent(endpoint) == 128e-9
    assert alice(one).spent == 128


def test_a_forked_child_starts_like_a_new_process(opened: Opener, endpoint: Endpoint) -> None:
    """It writes neither its parent's unwritten changes nor the floors of its parent's holds."""
    store = opened(test_clock=True)
    store.execute(hold_of("h", floor=4, now=1_000_000))
    store.execute(charge_of("before", usd=2, now=1_000_000))
    refused(store, endpoint, charge_of("parent", usd=100, now=1_000_000))

    def charge(_: Child) -> str:
        store.execute(charge_of("child", usd=1, now=200_000_000))
        state = of(store, now=200_000_000)
        return f"{state and (state.spent, state.held)} {calls_of(store)}"

    child = Child(charge)
    assert child.result() == "(3, 0) 1"
    assert spent(endpoint) == 3e-9
    store.execute(charge_of("parent", usd=100, now=2_000_000))
    assert spent(endpoint) == 103e-9


def test_a_child_that_is_forked_during_an_exchange_goes_on(store: HostedStore, endpoint: Endpoint) -> None:
    """Another thread of the parent holds the locks of the exchange and the ledger."""
    store.execute(charge_of("before"))
    endpoint.stalled = threading.Event()
    thread = threading.Thread(target=store.execute, args=(charge_of("parent"),))
    asked = len(endpoint.asked)
    thread.start()
    while len(endpoint.asked) == asked:
        time.sleep(0.001)
    child = Child(lambda _: f"{store.execute(charge_of('child'))}")
    endpoint.stalled.set()
    thread.join()
    assert child.result() == f"{Settled('child')}"


def test_it_says_why_it_cannot_be_copied(store: HostedStore) -> None:
    for ask in (store.projects, lambda: store.export("p", "", 10), lambda: store.load("p", Rows())):
        with pytest.raises(BudgetStoreError, match="cannot be copied row by row"):
            ask()


def test_a_closed_store_refuses(store: HostedStore) -> None:
    store.close()
    store.close()
    store.sync()
    with pytest.raises(BudgetStoreError, match="was closed"):
        store.execute(ReadUsage("p", "user"))


@pytest.mark.parametrize("data", [[], None, "alice", 5])
def test_an_endpoint_of_something_else_is_told(store: HostedStore, endpoint: Endpoint, data: Any) -> None:
    endpoint.data["p"] = data
    with pytest.raises(BudgetStoreError, match="endpoint of LiteLLM's budget protocol"):
        store.execute(charge_of("h"))
    assert endpoint.data["p"] is data


def test_the_worker_delivers_through_it(opened: Opener, endpoint: Endpoint) -> None:
    """As for every networked store; charges that an outage delayed arrive after it."""
    worker = StoreWorker(opened(), 2.0)
    endpoint.away = True
    for number in range(50):
        worker.deliver(charge_of(f"h{number}", usd=1), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    endpoint.away = False
    worker.flush()
    assert spent(endpoint) == 50e-9
    worker.release()


def test_accounts_of_others_than_users_are_the_process_own(opened: Opener, endpoint: Endpoint) -> None:
    """The protocol cannot carry them: a project's limit starts again with each process."""
    limits = (*LIMIT, Default("project", "none", 100))
    one, two = opened(), opened()
    one.execute(Settle("a", "p", (*ALICE, Subject("project", "p")), (), 30, "m", defaults=limits))
    states = [store.execute(Read("p", "project", defaults=limits)).accounts for store in (one, two)]  # type: ignore[union-attr]
    assert [state.spent for state in states[0]] == [30] and states[1] == ()
    assert endpoint.data["p"].keys() == {"alice"}
