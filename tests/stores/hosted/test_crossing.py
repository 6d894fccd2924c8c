"""Writes that cross: the protocol replaces the whole dictionary, and the last write wins. What it has wiped out comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import DropBudget, PutBudget, Read, Reset, Settle
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.settler import Settler
from litellm_budget_plugin.stores.hosted import records, standing
from litellm_budget_plugin.stores.hosted.store import HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, LIMIT, account_of, charge_of
from tests.stores.hosted.endpoint import Endpoint

Opener = Callable[..., HostedStore]
START = 1_774_734_000 * SECOND
DAILY = (Default("user", "day@UTC", 1000),)


def settled(*stores: HostedStore) -> None:
    """Some seconds go by: everybody looks at what became of the last write, twice."""
    for store in stores * 2:
        store._lines["p"].read_at -= 3.0
        store.sync()


@pytest.fixture
def pair(opened: Opener) -> tuple[HostedStore, HostedStore]:
    """Two stores that know of the same 100 that alice has spent, of 1000 of her own."""
    one, two = opened(), opened()
    ask(one, PutBudget("c", "p", ALICE[0], limit=1000, only=True))
    one.execute(charge_of("before", usd=100))
    account_of(two)
    return one, two


@pytest.mark.parametrize(
    ("command", "limit", "spent"),
    [
        (PutBudget("x", "p", ALICE[0], limit=50), 50, 107),
        (PutBudget("x", "p", ALICE[0], limit=50, window="7d", only=True), 50, 107),
        (Reset("x", "p", ALICE[0]), 1000, 7),
        (PutBudget("x", "p", ALICE[0], spent=(("m", 30),)), 1000, 37),
    ],
    ids=["limit", "window", "reset", "spent"],
)
def test_a_change_that_a_charge_has_overwritten_comes_back(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint, command: Any, limit: int, spent: int
) -> None:
    """The charge that overwrote it was made without knowing of it. Both count; of a reset and a charge that cross, either may
    have come first.
    """
    one, two = pair
    endpoint.before_set = lambda: ask(two, command)
    one.execute(charge_of("h", usd=7))
    settled(one, two)
    states = [account_of(store) for store in pair]
    assert states[0].limit == states[1].limit == limit
    assert states[0].spent == states[1].spent and states[0].spent in (spent, spent - 7)
    assert endpoint.data["p"]["alice"]["current_cost"] == pytest.approx(states[0].spent / 1e9)
    asked = len(endpoint.asked)
    settled(one, two)
    assert "/set_budget" not in endpoint.asked[asked:]


def test_a_window_moved_by_hand_that_a_charge_has_overwritten_comes_back(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint
) -> None:
    one, two = pair
    ask(one, PutBudget("w", "p", ALICE[0], window="7d", only=True))
    start, end = account_of(two).start - 3600 * SECOND, account_of(two).end
    assert end is not None
    endpoint.before_set = lambda: ask(two, PutBudget("x", "p", ALICE[0], bounds=(start, end - 3600 * SECOND)))
    one.execute(charge_of("h", usd=7))
    settled(one, two)
    assert [account_of(store).start for store in pair] == [start, start]


def test_a_drop_that_a_charge_has_overwritten_comes_back(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint
) -> None:
    one, two = pair
    endpoint.before_set = lambda: two.execute(DropBudget("x", "p", ALICE[0]))
    one.execute(charge_of("h", usd=7))
    settled(one, two)
    assert "dropped" in endpoint.data["p"]["alice"]["ledger"]
    for store in pair:
        assert store.execute(Read("p", "user", "alice")).accounts == ()  # type: ignore[union-attr]


def test_a_charge_that_a_change_has_overwritten_comes_back(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint
) -> None:
    one, two = pair
    endpoint.before_set = lambda: one.execute(charge_of("h", usd=7))
    ask(two, PutBudget("x", "p", ALICE[0], limit=50))
    settled(one, two)
    for store in pair:
        state = account_of(store)
        assert (state.limit, state.spent) == (50, 107)


def test_a_first_charge_that_was_overwritten_comes_back(opened: Opener, endpoint: Endpoint) -> None:
    """The whole record is gone, as that of a user who was dropped; but nobody has dropped it."""
    one, two = opened(), opened()
    bob = Settle("b", "p", (Subject("user", "bob"),), (), 5, "m", defaults=LIMIT)
    endpoint.before_set = lambda: two.execute(bob)
    one.execute(charge_of("h", usd=7))
    assert "bob" not in endpoint.data["p"]
    settled(one, two)
    assert endpoint.data["p"]["bob"]["current_cost"] == 5e-9


def test_two_processes_that_open_a_window_at_once_count_both_in_it(opened: Opener, endpoint: Endpoint) -> None:
    """A window of fixed length begins with a user's first call: here there are two, moments apart."""
    one, two = opened(test_clock=True), opened(test_clock=True)
    weekly = (Default("user", "7d", 1000),)

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=weekly, now=at))

    endpoint.before_set = lambda: charge(two, "b", 3, START + SECOND)
    charge(one, "a", 5, START)
    settled(one, two)
    assert endpoint.data["p"]["alice"]["current_cost"] == 8e-9


def test_two_processes_that_end_a_window_at_once_count_both_in_the_new_one(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(test_clock=True), opened(test_clock=True)

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=DAILY, now=at))

    charge(one, "a", 100, START)
    charge(two, "b", 10, START)
    endpoint.before_set = lambda: charge(two, "d", 3, START + DAY + SECOND)
    charge(one, "c", 5, START + DAY)
    settled(one, two)
    assert endpoint.data["p"]["alice"]["current_cost"] == 8e-9


def test_a_window_that_others_ended_while_a_write_failed_keeps_only_what_is_new(
    opened: Opener, endpoint: Endpoint
) -> None:
    """The old window's spend does not come back with the charge that could not be written."""
    one, two = opened(test_clock=True), opened(test_clock=True)

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=DAILY, now=at))

    charge(one, "a", 100, START)
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge(one, "late", 7, START + SECOND)
    endpoint.refuses_writes = False
    charge(two, "d", 3, START + DAY)
    charge(one, "late", 7, START + DAY + SECOND)
    assert endpoint.data["p"]["alice"]["current_cost"] == 10e-9


def test_a_window_that_ended_here_wins_over_a_late_charge_to_the_old_one(opened: Opener, endpoint: Endpoint) -> None:
    """The other's clock is a little behind, and this one could not write when it ended the window."""
    one, two = opened(test_clock=True), opened(test_clock=True)

    def charge(store: HostedStore, name: str, usd: int, at: int) -> None:
        ask(store, Settle(name, "p", ALICE, (), usd, "m", defaults=DAILY, now=at))

    charge(one, "a", 100, START)
    began = endpoint.data["p"]["alice"]["last_updated_at"]
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge(one, "new", 7, START + DAY)
    endpoint.refuses_writes = False
    charge(two, "old", 3, START + SECOND)
    charge(one, "new", 7, START + DAY + SECOND)
    assert endpoint.data["p"]["alice"]["current_cost"] == 7e-9
    assert endpoint.data["p"]["alice"]["last_updated_at"] == began + 86_400
    charge(one, "newer", 1, START + DAY + SECOND)
    assert endpoint.data["p"]["alice"]["current_cost"] == 8e-9


def test_threads_of_several_stores_lose_nothing(opened: Opener, endpoint: Endpoint) -> None:
    stores = [opened(timeout=20.0) for _ in range(3)]

    def work(number: int) -> None:
        for turn in range(15):
            stores[number % 3].execute(charge_of(f"{number}-{turn}", usd=1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled(*stores)
    assert endpoint.data["p"]["alice"]["current_cost"] == 90e-9
    assert [account_of(store).spent for store in stores] == [90] * 3


def idle_for_an_hour(store: HostedStore, endpoint: Endpoint) -> str:
    """As if the store, alice's only writer, had written long ago. Returns what it is called in her record."""
    spent: dict[str, list[int]] = endpoint.data["p"]["alice"]["ledger"]["spent"]
    [writer] = spent
    spent[writer][0] -= records.REMEMBERED
    store._lines["p"].standings["alice"].at -= records.REMEMBERED
    return writer


def test_what_others_have_spent_is_told_apart_for_an_hour(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint
) -> None:
    """Then it is no longer written down whose it is, and a store that comes back does not add it again."""
    one, two = pair
    writer = idle_for_an_hour(one, endpoint)
    two.execute(charge_of("h", usd=7))
    assert writer not in endpoint.data["p"]["alice"]["ledger"]["spent"]
    one.execute(charge_of("later", usd=1))
    settled(one, two)
    assert endpoint.data["p"]["alice"]["current_cost"] == 108e-9


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_no_longer_told_apart_is_not_added_after_a_crossing(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint, refused: bool
) -> None:
    """A store that was idle for an hour charges again, and that write is overwritten by another one, or fails before it."""
    one, two = pair
    idle_for_an_hour(one, endpoint)
    two.execute(charge_of("h", usd=7))
    if refused:
        endpoint.refuses_writes = True
        with pytest.raises(BudgetStoreUnavailable):
            one.execute(charge_of("later", usd=1))
        endpoint.refuses_writes = False
        two.execute(charge_of("h2", usd=2))
        one.execute(charge_of("later", usd=1))
    else:
        endpoint.before_set = lambda: one.execute(charge_of("later", usd=1))
        two.execute(charge_of("h2", usd=2))
    settled(one, two)
    assert endpoint.data["p"]["alice"]["current_cost"] == 110e-9
    assert [account_of(store).spent for store in pair] == [110] * 2


def test_an_older_copy_that_is_put_back_long_after_is_believed(
    pair: tuple[HostedStore, HostedStore], endpoint: Endpoint
) -> None:
    """Not the limit that was written here before, but the one in the copy."""
    one, _ = pair
    old = endpoint.data["p"]
    ask(one, PutBudget("x", "p", ALICE[0], limit=50))
    account_of(one)
    endpoint.data["p"] = old
    one._lines["p"].standings["alice"].at -= standing.RECENT + SECOND
    assert account_of(one).limit == 1000


def test_the_settler_delivers_through_it(opened: Opener, endpoint: Endpoint) -> None:
    """As it does for every networked store; what an outage held up comes after it."""
    settler = Settler(opened(), 2.0)
    endpoint.away = True
    for number in range(50):
        settler.deliver(charge_of(f"h{number}", usd=1), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        settler.flush()
    endpoint.away = False
    settler.flush()
    assert endpoint.data["p"]["alice"]["current_cost"] == 50e-9
    settler.ask(Read("p", "probe", ""), 1.0)
    settler.close()
