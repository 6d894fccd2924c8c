"""Failures of the endpoint, restarts, forks: no charge is lost and none counts twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Settle,
    Settled,
)
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.rows import Rows
from tests.stores.desk import ALICE, LIMIT, account_of, calls_of, charge_of, hold_of
from tests.stores.hosted.endpoint import Endpoint
from tests.stores.processes import Child

Opener = Callable[..., HostedStore]


def spent(endpoint: Endpoint, user: str = "alice") -> Any:
    return endpoint.data["p"][user].get("current_cost", 0)


def later(store: HostedStore) -> None:
    """Some seconds go by, and the settler calls."""
    store._lines["p"].read_at -= 3.0
    store.sync()


def test_a_write_whose_answer_was_lost_counts_once(store: HostedStore, endpoint: Endpoint) -> None:
    endpoint.deaf = True
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(charge_of("h"))
    assert spent(endpoint) == 10e-9
    endpoint.deaf = False
    assert store.execute(charge_of("h")) == Settled("h")
    assert spent(endpoint) == 10e-9
    assert endpoint.asked == ["/get_budget", "/set_budget", "/get_budget"]


def test_a_write_whose_answer_was_lost_counts_once_although_others_wrote_since(
    opened: Opener, endpoint: Endpoint
) -> None:
    """Also when another one has charged the very same: the record looks like what was to be written, and is not it."""
    one, two = opened(), opened()
    endpoint.deaf = True
    with pytest.raises(BudgetStoreUnavailable):
        one.execute(charge_of("h"))
    endpoint.deaf = False
    two.execute(charge_of("other"))
    one.execute(charge_of("h"))
    assert spent(endpoint) == 20e-9
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable, match="the disk is full"):
        one.execute(charge_of("h 2"))
    endpoint.refuses_writes = False
    two.execute(charge_of("other 2"))
    one.execute(charge_of("h 2"))
    assert spent(endpoint) == 40e-9
    assert account_of(one).spent == account_of(two).spent == 40


def test_what_could_not_be_written_goes_with_the_next_write(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(charge_of("first"))
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(charge_of("h"))
    with pytest.raises(BudgetStoreUnavailable):
        # Here it is done, but it is acknowledged only when it is there.
        store.execute(charge_of("h"))
    endpoint.refuses_writes = False
    store.execute(charge_of("next", usd=1))
    assert spent(endpoint) == 21e-9
    assert store.execute(charge_of("h")) == Settled("h")
    assert spent(endpoint) == 21e-9


def test_an_endpoint_that_is_away_is_not_asked_twice_and_nothing_is_done(
    store: HostedStore, endpoint: Endpoint
) -> None:
    endpoint.away = True
    for command in (hold_of("a"), charge_of("b")):
        with pytest.raises(BudgetStoreUnavailable, match="503"):
            store.execute(command)
    endpoint.away = False
    assert store.execute(hold_of("a")) == Granted("a", Amounts(10))
    assert store.execute(charge_of("b")) == Settled("b")
    assert spent(endpoint) == 10e-9


def test_a_reset_a_drop_and_a_limit_survive_a_write_that_failed(opened: Opener, endpoint: Endpoint) -> None:
    """Meanwhile another store charges: the limit wins, the charge stays."""
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    one.execute(Settle("b", "p", (Subject("user", "bob"),), (), 5, "m", defaults=LIMIT))
    endpoint.refuses_writes = True
    put, drop = PutBudget("c", "p", ALICE[0], limit=50, defaults=LIMIT), DropBudget("d", "p", Subject("user", "bob"))
    for command in (put, drop):
        with pytest.raises(BudgetStoreUnavailable):
            one.execute(command)
    endpoint.refuses_writes = False
    two.execute(charge_of("theirs", usd=7))
    for command in (put, drop):
        one.execute(command)
    assert "dropped" in endpoint.data["p"]["bob"]["ledger"]
    assert endpoint.data["p"]["alice"]["total_budget"] == 50e-9 and spent(endpoint) == 107e-9
    state = account_of(two)
    assert (state.limit, state.spent) == (50, 107)


def test_a_limit_that_could_not_be_written_wins_over_a_record_that_others_made(
    opened: Opener, endpoint: Endpoint
) -> None:
    one, two = opened(), opened()
    put = PutBudget("c", "p", ALICE[0], limit=50, defaults=LIMIT)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        one.execute(put)
    endpoint.refuses_writes = False
    two.execute(charge_of("theirs", usd=7))
    one.execute(put)
    state = account_of(two)
    assert (state.limit, state.spent) == (50, 7)


def test_a_restart_begins_with_what_was_acknowledged(opened: Opener) -> None:
    opened().execute(charge_of("h", usd=123))
    assert account_of(opened()).spent == 123


def test_the_floor_of_an_expired_hold_is_written_by_the_next_sync(opened: Opener, endpoint: Endpoint) -> None:
    store = opened(test_clock=True)
    store.execute(hold_of("h", floor=4, now=1_000_000))
    store.execute(Release("other", "p", now=100_000_000))
    store.sync()
    assert spent(endpoint) == 4e-9
    store.execute(Release("h", "p", now=101_000_000))
    assert spent(endpoint) == 0


def test_a_floor_given_back_and_a_reset_at_once_leave_nothing_below_zero(opened: Opener, endpoint: Endpoint) -> None:
    store = opened(test_clock=True)
    store.execute(hold_of("h", floor=4, now=1_000_000))
    store.execute(Release("other", "p", now=100_000_000))
    assert spent(endpoint) == 4e-9
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(Release("h", "p", now=101_000_000))
    endpoint.refuses_writes = False
    endpoint.data["p"]["alice"].update(current_cost=0, model_cost={})
    store.sync()
    assert spent(endpoint) == 0
    store.execute(charge_of("next", usd=5, now=102_000_000))
    assert spent(endpoint) == 5e-9


def test_sync_reads_ahead_only_for_calls_that_go_on(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(hold_of("a"))
    store.execute(hold_of("b"))
    store._lines["p"].read_at -= 1.5
    endpoint.asked.clear()
    store.sync()
    assert endpoint.asked == ["/get_budget"]
    later(store)
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


def test_a_child_writes_nothing_of_its_parent(opened: Opener, endpoint: Endpoint) -> None:
    """Neither what its parent has yet to write nor the floors of its parent's holds; it begins with what is there."""
    store, childs = opened(test_clock=True), opened()
    team, project = Subject("team", "blue"), Subject("project", "p")
    defaults = (*LIMIT, Default("team", "none", 1000), Default("project", "none", 1000))
    whole = {"subjects": (*ALICE, team, project), "defaults": defaults}
    store.execute(replace(hold_of("h", floor=4, now=1_000_000), **whole))
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(replace(charge_of("parent", usd=100, now=1_000_000), **whole))
    endpoint.refuses_writes = False

    def charge(_: Child) -> str:
        store._exchange = childs._exchange
        store.execute(replace(charge_of("child", usd=1, now=200_000_000), **whole))
        states = []
        for scope in ("user", "team", "project"):
            reply = store.execute(Read("p", scope, defaults=defaults, now=200_000_000))
            assert isinstance(reply, Accounts)
            states += [(state.spent, state.held) for state in reply.accounts]
        return f"{states} {calls_of(store)}"

    child = Child(charge)
    # The team's budget lives in the processes only: the child has a copy of it, as that of a store in memory.
    assert child.result() == "[(1, 0), (101, 0), (1, 0)] 2"
    assert spent(endpoint) == 1e-9
    store.execute(replace(charge_of("parent", usd=100, now=2_000_000), **whole))
    assert spent(endpoint) == 101e-9


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
