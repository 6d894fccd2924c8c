"""Several stores on one endpoint that take turns: each other's charges, limits, resets, drops and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    DropBudget,
    Read,
    Refused,
    Release,
    Reset,
    Settle,
)
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.stores.hosted.store import HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, account_of, charge_of, hold_of
from tests.stores.hosted.desk import of, put, record
from tests.stores.hosted.endpoint import Endpoint

Opener = Callable[..., HostedStore]


def test_two_stores_that_take_turns_sum_up_exactly(opened: Opener, endpoint: Endpoint) -> None:
    stores = [opened() for _ in range(3)]
    for turn in range(12):
        stores[turn % 3].execute(charge_of(f"h{turn}", usd=turn + 1))
    assert [account_of(store).spent for store in stores] == [78] * 3
    assert record(endpoint)["model_cost"] == {"m": 78e-9}


def test_charges_that_cross_are_written_again(opened: Opener, endpoint: Endpoint) -> None:
    """The protocol has no compare-and-set: what was written between a read and a write is overwritten. Whose write it was
    sees it at the next read.
    """
    one, two = opened(), opened()
    put(one, "limit", limit=1000)
    account_of(two)
    endpoint.before_set = lambda: two.execute(charge_of("two", usd=7))
    one.execute(charge_of("one", usd=5))
    assert record(endpoint)["current_cost"] == 5e-9
    two._lines["p"].read_at -= 3.0
    two.sync()
    assert record(endpoint)["current_cost"] == 12e-9
    assert account_of(one).spent == account_of(two).spent == 12
    for store in (one, two):
        store._lines["p"].read_at -= 3.0
        store.sync()
    assert record(endpoint)["current_cost"] == 12e-9


def test_a_limit_that_is_changed_there_counts_here(opened: Opener) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    put(two, "c", limit=50)
    state = account_of(one)
    assert (state.pinned, state.limit, state.spent) == (True, 50, 100)


def test_a_reset_there_counts_here(opened: Opener) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    two.execute(Reset("r", "p", ALICE[0]))
    assert account_of(one).spent == 0
    one.execute(charge_of("later", usd=3))
    assert account_of(two).spent == 3


def test_a_floor_that_a_reset_there_took_back_is_not_given_back_again(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened()
    one.execute(charge_of("before", usd=1, now=1_000_000))
    one.execute(hold_of("h", floor=4, now=1_000_000))
    one.execute(charge_of("other", usd=1, now=100_000_000))
    assert record(endpoint)["current_cost"] == 6e-9
    two.execute(Reset("r", "p", ALICE[0]))
    assert account_of(one, now=100_000_000).spent == 0
    one.execute(Release("h", "p", now=101_000_000))
    assert account_of(one, now=101_000_000).spent == 0
    assert record(endpoint)["current_cost"] == 0


def test_a_user_who_is_dropped_there_is_gone_here(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=50)
    one.execute(hold_of("h"))
    two.execute(DropBudget("d", "p", ALICE[0], model=""))
    assert record(endpoint)["default"] is True and "dropped" in record(endpoint)["ledger"]
    state = of(one)
    assert state is not None and not state.pinned and (state.spent, state.held) == (0, 10)
    one.execute(charge_of("h", usd=4))
    assert record(endpoint)["current_cost"] == 4e-9 and record(endpoint)["default"] is True
    assert "dropped" not in record(endpoint)["ledger"]


@pytest.mark.parametrize("window", ["none", "7d"])
def test_the_record_of_a_dropped_user_goes_after_a_minute(opened: Opener, endpoint: Endpoint, window: str) -> None:
    """A store that had read the record before would else take it for one that was overwritten, and write it again."""
    defaults = (Default("user", window, 1000),)
    bob = Settle("b", "p", (Subject("user", "bob"),), (), 5, "m", defaults=defaults)
    one, two = opened(), opened()
    for store, name in ((one, "one"), (two, "two")):
        ask(store, Settle(name, "p", ALICE, (), 5, "m", defaults=defaults))
    two.execute(DropBudget("d", "p", ALICE[0], model=""))
    asked = len(endpoint.asked)
    ask(one, replace(bob, hold="b 1"))
    assert endpoint.asked[asked:].count("/set_budget") == 1 and "dropped" in record(endpoint)["ledger"]
    assert of(one, defaults=defaults) is None
    record(endpoint)["ledger"]["dropped"] -= 61 * SECOND
    ask(one, replace(bob, hold="b 2"))
    assert "alice" not in endpoint.data["p"]
    for store in (one, two, opened()):
        assert of(store, defaults=defaults) is None
    for store, name in ((one, "one 2"), (two, "two 2")):
        ask(store, Settle(name, "p", ALICE, (), 3, "m", defaults=defaults))
    for store in (one, two, opened()):
        state = of(store, defaults=defaults)
        assert state is not None and state.spent == 6


def test_a_record_that_somebody_deleted_by_hand_is_gone(opened: Opener, endpoint: Endpoint) -> None:
    """Not at once: a moment after it was written, it may have been overwritten by somebody who had not seen it."""
    store = opened()
    put(store, "c", limit=50)
    store.execute(charge_of("h", usd=3))
    del endpoint.data["p"]["alice"]
    assert account_of(store).spent == 3
    store.sync()
    assert record(endpoint)["current_cost"] == 3e-9 and record(endpoint)["total_budget"] == 50e-9
    store._lines["p"].standings["alice"].at -= 11 * SECOND
    del endpoint.data["p"]["alice"]
    assert of(store) is None


def test_another_window_there_takes_the_holds_along(opened: Opener) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=50)
    one.execute(hold_of("h"))
    put(two, "d", window="7d")
    state = account_of(one)
    assert (state.ref.window, state.held, state.limit) == ("7d", 10, 50)
    one.execute(charge_of("h", usd=4))
    state = account_of(one)
    assert (state.held, state.spent) == (0, 4)
    assert account_of(two).spent == 4


def test_a_process_with_another_default_window_keeps_to_its_own(opened: Opener) -> None:
    """As on every store, those are two accounts; the record shows the one that was written last."""
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=990))
    weekly = Settle("w", "p", ALICE, (), 5, "m", defaults=(Default("user", "7d", 1000),))
    ask(two, weekly)
    state = of(one)
    assert state is not None and (state.ref.window, state.spent) == ("none", 990)
    assert isinstance(one.execute(hold_of("more", usd=20)), Refused)
    one.execute(charge_of("h 2", usd=1))
    ask(two, replace(weekly, hold="w 2"))
    state = of(two, defaults=weekly.defaults)
    assert state is not None and (state.ref.window, state.spent) == ("7d", 10)


def test_a_window_that_ends_here_does_not_come_back(opened: Opener, endpoint: Endpoint) -> None:
    """The store that rolls writes the new window; one that still has the old one takes it over."""
    start = 1_774_734_000 * SECOND
    one, two = opened(test_clock=True), opened(test_clock=True)
    defaults = (Default("user", "day@UTC", 1000),)

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=defaults, now=at))

    charge(one, "a", 100, start)
    charge(two, "b", 10, start + SECOND)
    charge(one, "c", 5, start + DAY)
    assert record(endpoint)["current_cost"] == 5e-9
    charge(two, "d", 3, start + DAY + SECOND)
    assert record(endpoint)["current_cost"] == 8e-9
    reply = one.execute(Read("p", "user", "alice", defaults=defaults, now=start + DAY + 2 * SECOND))
    assert isinstance(reply, Accounts) and [state.spent for state in reply.accounts] == [8]
