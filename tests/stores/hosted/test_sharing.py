"""Several stores on one endpoint: alternating changes add up exactly; of concurrent writes, the last one wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import DropBudget, PutBudget, Read, Refused, Release, Reset, Settle, Sweep
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, LIMIT, charge_of, hold_of
from tests.stores.hosted.desk import alice, of, put, record
from tests.stores.hosted.endpoint import Endpoint

Opener = Callable[..., HostedStore]
START = 1_774_734_000 * SECOND
DAILY = (Default("user", "day@UTC", 1000),)


def test_stores_that_take_turns_sum_up_exactly(opened: Opener, endpoint: Endpoint) -> None:
    stores = [opened() for _ in range(3)]
    for turn in range(12):
        stores[turn % 3].execute(charge_of(f"h{turn}", usd=turn + 1))
    assert [alice(store).spent for store in stores] == [78] * 3
    assert record(endpoint)["model_cost"] == {"m": 78e-9}


def test_of_two_charges_that_cross_the_last_write_stays(opened: Opener, endpoint: Endpoint) -> None:
    """The protocol cannot do better. Both stores agree afterwards."""
    one, two = opened(), opened()
    put(one, "limit", limit=1000)
    alice(two)
    endpoint.before_set = lambda: two.execute(charge_of("two", usd=7))
    one.execute(charge_of("one", usd=5))
    assert record(endpoint)["current_cost"] == 5e-9
    assert alice(one).spent == alice(two).spent == 5
    two.sync()
    assert record(endpoint)["current_cost"] == 5e-9


@pytest.mark.parametrize(
    ("command", "limit", "spent"),
    [
        (PutBudget("x", "p", ALICE[0], limit=50), 50, 107),
        (PutBudget("x", "p", ALICE[0], limit=50, window="7d", only=True), 50, 107),
        (Reset("x", "p", ALICE[0]), 1000, 7),
        (PutBudget("x", "p", ALICE[0], spent=(("m", 30),)), 1000, 37),
        (DropBudget("x", "p", ALICE[0]), 1000, 7),
    ],
    ids=["limit", "window", "reset", "spent", "drop"],
)
def test_a_change_that_waits_goes_on_top_of_what_others_wrote(
    opened: Opener, endpoint: Endpoint, command: Any, limit: int, spent: int
) -> None:
    """In both directions: either the change waits, or the charge does."""
    for charge_waits in (False, True):
        endpoint.forget()
        one, two = opened(), opened()
        ask(one, PutBudget("c", "p", ALICE[0], limit=1000, only=True, defaults=LIMIT))
        one.execute(charge_of("before", usd=100))
        alice(two)
        first, second = (charge_of("h", usd=7), command) if charge_waits else (command, charge_of("h", usd=7))
        endpoint.refuses_writes = True
        with pytest.raises(BudgetStoreUnavailable):
            ask(one, first)
        endpoint.refuses_writes = False
        ask(two, second)
        ask(one, first)
        if isinstance(command, DropBudget) and not charge_waits:
            assert of(one) is None and of(two) is None
            continue
        states = [alice(store) for store in (one, two)]
        assert [(state.limit, state.spent) for state in states] == [(limit, spent)] * 2


def test_a_reset_there_counts_here(opened: Opener) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    alice(two)
    two.execute(Reset("r", "p", ALICE[0]))
    assert alice(one).spent == 0
    one.execute(charge_of("later", usd=3))
    assert alice(two).spent == 3


def test_a_floor_that_a_reset_there_took_back_is_not_given_back_again(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened()
    one.execute(charge_of("before", usd=1, now=1_000_000))
    one.execute(hold_of("h", floor=4, now=1_000_000))
    one.execute(Sweep("p", DAY, DAY, now=100_000_000))
    one.execute(charge_of("other", usd=1, now=100_000_000))
    assert record(endpoint)["current_cost"] == 6e-9
    alice(two)
    two.execute(Reset("r", "p", ALICE[0]))
    assert alice(one, now=100_000_000).spent == 0
    one.execute(Release("h", "p", now=101_000_000))
    assert alice(one, now=101_000_000).spent == 0
    assert record(endpoint)["current_cost"] == 0


def test_a_user_who_is_dropped_there_is_gone_here(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=50)
    one.execute(hold_of("h"))
    alice(two)
    two.execute(DropBudget("d", "p", ALICE[0], model=""))
    assert "alice" not in endpoint.data["p"]
    state = alice(one)
    assert not state.pinned and (state.spent, state.held) == (0, 10)
    one.execute(charge_of("h", usd=4))
    assert record(endpoint)["current_cost"] == 4e-9 and record(endpoint)["default"] is True
    two.execute(DropBudget("d 2", "p", ALICE[0], model=""))
    alice(one)
    del endpoint.data["p"]["alice"]
    assert of(one) is None


def test_another_window_there_takes_the_holds_along(opened: Opener) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=50)
    one.execute(hold_of("h"))
    alice(two)
    put(two, "d", window="7d")
    state = alice(one)
    assert (state.ref.window, state.held, state.limit) == ("7d", 10, 50)
    one.execute(charge_of("h", usd=4))
    state = alice(one)
    assert (state.held, state.spent) == (0, 4)
    assert alice(two).spent == 4


def test_a_process_with_another_default_window_keeps_to_its_own(opened: Opener, endpoint: Endpoint) -> None:
    """As on every store, these are two accounts; the record shows the one written last."""
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=990))
    weekly = Settle("w", "p", ALICE, (), 5, "m", defaults=(Default("user", "7d", 1000),))
    ask(two, weekly)
    assert record(endpoint)["current_cost"] == 5e-9
    assert (alice(one).ref.window, alice(one).spent) == ("none", 990)
    assert isinstance(one.execute(hold_of("more", usd=20)), Refused)
    one.execute(charge_of("h 2", usd=1))
    assert record(endpoint)["current_cost"] == 991e-9


def charge_daily(store: HostedStore, name: str, usd: int, at: int) -> None:
    ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=DAILY, now=at))


def test_a_window_that_ends_here_does_not_come_back(opened: Opener, endpoint: Endpoint) -> None:
    """The store that rolls the window writes the new one; a store with the old one takes it over."""
    one, two = opened(test_clock=True), opened(test_clock=True)
    charge_daily(one, "a", 100, START)
    charge_daily(two, "b", 10, START + SECOND)
    charge_daily(one, "c", 5, START + DAY)
    assert record(endpoint)["current_cost"] == 5e-9
    charge_daily(two, "d", 3, START + DAY + SECOND)
    assert record(endpoint)["current_cost"] == 8e-9
    state = of(one, defaults=DAILY, now=START + DAY + 2 * SECOND)
    assert state is not None and state.spent == 8


@pytest.mark.parametrize("window", ["day@UTC", "7d"])
def test_two_that_end_a_window_count_both_in_the_new_one(opened: Opener, endpoint: Endpoint, window: str) -> None:
    """One of them could not write at first."""
    one, two = opened(test_clock=True), opened(test_clock=True)
    defaults = (Default("user", window, 1000),)
    after = START + 8 * DAY

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=defaults, now=at))

    charge(one, "a", 100, START)
    charge(two, "b", 10, START)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge(one, "c", 5, after)
    endpoint.refuses_writes = False
    charge(two, "d", 3, after + SECOND)
    charge(one, "c", 5, after + 2 * SECOND)
    assert record(endpoint)["current_cost"] == 8e-9


def test_a_charge_that_waited_counts_in_the_window_that_others_began(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened(test_clock=True)
    charge_daily(one, "a", 100, START)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge_daily(one, "late", 7, START + SECOND)
    endpoint.refuses_writes = False
    charge_daily(two, "d", 3, START + DAY)
    charge_daily(one, "late", 7, START + DAY + SECOND)
    assert record(endpoint)["current_cost"] == 10e-9


def test_of_two_windows_that_were_begun_the_later_one_counts(opened: Opener, endpoint: Endpoint) -> None:
    """The endpoint took no writes of one process for a day."""
    one, two = opened(test_clock=True), opened(test_clock=True)
    charge_daily(one, "a", 100, START)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge_daily(one, "late", 5, START + DAY)
    endpoint.refuses_writes = False
    charge_daily(two, "d", 3, START + 2 * DAY)
    charge_daily(one, "late", 5, START + 2 * DAY)
    assert record(endpoint)["current_cost"] == 8e-9


def test_a_reset_that_waited_takes_nothing_from_a_window_that_others_began(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened(test_clock=True)
    charge_daily(one, "a", 100, START)
    reset = Reset("r", "p", ALICE[0], now=START)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        one.execute(reset)
    endpoint.refuses_writes = False
    charge_daily(two, "d", 3, START + DAY)
    one.execute(reset)
    charge_daily(one, "e", 1, START + DAY)
    assert record(endpoint)["current_cost"] == 4e-9


def test_a_floor_of_a_window_that_others_ended_is_not_given_back(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened(test_clock=True)
    charge_daily(one, "a", 1, START)
    ask(one, replace(hold_of("h", floor=4, now=START), defaults=DAILY))
    one.execute(Sweep("p", DAY, DAY, now=START + 100 * SECOND))
    charge_daily(one, "b", 1, START + 100 * SECOND)
    assert record(endpoint)["current_cost"] == 6e-9
    charge_daily(two, "d", 10, START + DAY)
    state = of(one, defaults=DAILY, now=START + DAY)
    assert state is not None and state.spent == 10
    one.execute(Release("h", "p", now=START + DAY + SECOND))
    charge_daily(one, "e", 1, START + DAY + SECOND)
    assert record(endpoint)["current_cost"] == 11e-9


def test_a_default_window_that_was_changed_begins_anew(opened: Opener, endpoint: Endpoint) -> None:
    """Also if the first command of the new process names no default, like that of the manager."""
    opened().execute(charge_of("h", usd=990))
    store = opened()
    assert store.execute(Read("p", "user")).accounts  # type: ignore[union-attr]
    weekly = (Default("user", "7d", 1000),)
    assert not isinstance(ask(store, replace(hold_of("h 2", usd=20), defaults=weekly)), Refused)
    ask(store, Settle("h 2", "p", ALICE, (), 5, "m", defaults=weekly))
    assert (record(endpoint)["current_cost"], record(endpoint)["duration"]) == (5e-9, 7)


def test_readers_see_no_user_who_has_no_record(opened: Opener) -> None:
    store = opened()
    assert store.execute(Read("p", "user")).accounts == ()  # type: ignore[union-attr]
