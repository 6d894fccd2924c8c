"""The dictionary at the endpoint as a ledger: what is read from it, when it is asked, and what it cannot say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    Granted,
    Read,
    Refused,
    Reset,
    Roll,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.hosted.store import HostedStore
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE, LIMIT, account_of, charge_of, hold_of
from tests.stores.hosted.desk import of, put, record
from tests.stores.hosted.endpoint import Endpoint

Opener = Callable[..., HostedStore]


def test_a_dictionary_that_is_there_is_the_ledger(store: HostedStore, endpoint: Endpoint) -> None:
    now = time.time()
    endpoint.data["p"] = {
        "alice": {
            "total_budget": 10.0,
            "duration": 7,
            "created_at": now - 100.0,
            "last_updated_at": now - 100.0,
            "current_cost": 0.5,
            "model_cost": {"gpt-4o": 0.5},
        },
        "bob": {"total_budget": 1},
    }
    alice, bob = of(store), of(store, "bob")
    assert alice is not None and bob is not None
    assert (alice.pinned, alice.limit, alice.spent, alice.models) == (
        True,
        10**10,
        5 * 10**8,
        (("gpt-4o", 5 * 10**8),),
    )
    assert alice.ref.window == "7d" and alice.end == alice.start + 7 * DAY
    assert (bob.pinned, bob.limit, bob.spent) == (True, 10**9, 0)


def test_a_hundred_charges_are_one_read_and_one_write(store: HostedStore, endpoint: Endpoint) -> None:
    outcomes = store.execute_all([charge_of(f"h{number}") for number in range(100)])
    assert outcomes == [Settled(f"h{number}") for number in range(100)]
    assert endpoint.asked == ["/get_budget", "/set_budget"]
    assert record(endpoint)["current_cost"] == 1e-6


def test_threads_that_charge_at_once_share_a_write(store: HostedStore, endpoint: Endpoint) -> None:
    """While one exchange goes on, the others gather for the next."""
    endpoint.stalled = threading.Event()
    threads = [threading.Thread(target=store.execute, args=(charge_of(f"h{number}"),)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(store._lines) < 1 or len(store._lines["p"].waiting) < 8:
        time.sleep(0.001)
    endpoint.stalled.set()
    for thread in threads:
        thread.join()
    assert record(endpoint)["current_cost"] == 80e-9
    assert len(endpoint.asked) <= 4


def test_holds_need_no_round_trip(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(charge_of("h"))
    endpoint.asked.clear()
    assert store.execute(hold_of("a")) == Granted("a", Amounts(10))
    assert isinstance(store.execute(hold_of("b", usd=981)), Refused)
    assert endpoint.asked == []


def test_holds_are_granted_on_what_is_known_to_be_fresh(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(hold_of("a"))
    endpoint.data["p"] = {"alice": {"total_budget": 1e-6, "current_cost": 995e-9}}
    assert isinstance(store.execute(hold_of("b")), Granted)
    store._lines["p"].read_at -= 2.0
    assert isinstance(store.execute(hold_of("c")), Refused)


def test_an_endpoint_that_keeps_litellms_keys_only_sums_up_too(opened: Opener, endpoint: Endpoint) -> None:
    """As long as they take turns: what tells a write that was wiped out is not there."""
    endpoint.strict = True
    one, two = opened(), opened()
    put(one, "limit", limit=500, window="7d")
    for turn in range(6):
        (one, two)[turn % 2].execute(charge_of(f"h{turn}", usd=turn + 1))
        one.sync()
    assert account_of(one).spent == account_of(two).spent == 21
    assert record(endpoint)["current_cost"] == 21e-9 and "ledger" not in record(endpoint)
    put(two, "lower", limit=50)
    assert account_of(one).limit == 50
    two.execute(Reset("r", "p", ALICE[0]))
    assert account_of(one).spent == 0


def test_followers_of_the_default_follow_the_readers(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    assert record(endpoint)["total_budget"] == 1e-6
    raised = (Default("user", "none", 5000),)
    state = of(two, defaults=raised)
    assert state is not None and (state.pinned, state.limit, state.spent) == (False, 5000, 100)


def test_no_limit_survives_json(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=None)
    assert record(endpoint)["total_budget"] == 9007199.254740991
    state = account_of(two)
    assert state.pinned and state.limit is None


def test_what_is_not_understood_is_kept_and_blocks_one_user(
    opened: Opener, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    strange = {
        "mallory": {"total_budget": "a lot"},
        "eve": 5,
        " spaces ": {"total_budget": 1},
        "alice": {"total_budget": 1e-6, "team": "blue", "model_cost": {}},
    }
    endpoint.data["p"] = dict(strange)
    store = opened()
    store.execute(charge_of("h"))
    assert {user: endpoint.data["p"][user] for user in strange if user != "alice"} == {
        user: data for user, data in strange.items() if user != "alice"
    }
    assert record(endpoint)["team"] == "blue" and record(endpoint)["current_cost"] == 10e-9
    assert "total_budget" in caplog.text and "mallory" in caplog.text and "eve" in caplog.text
    reserve = hold_of("m")
    refused = store.execute(reserve.__class__("m", "p", (Subject("user", "mallory"),), (), Amounts(1), 10**6, LIMIT))
    assert isinstance(refused, Refused) and refused.reason == "blocked"
    store.execute(Settle("late", "p", (Subject("user", "mallory"),), (), 6, "m", defaults=LIMIT))
    assert record(endpoint, "mallory") == {"total_budget": "a lot"}
    endpoint.data["p"]["mallory"] = {"total_budget": 1e-6}
    store.execute(charge_of("another"))
    assert record(endpoint, "mallory")["current_cost"] == 6e-9
    granted = store.execute(reserve.__class__("n", "p", (Subject("user", "mallory"),), (), Amounts(1), 10**6, LIMIT))
    assert isinstance(granted, Granted)


def test_a_project_limit_counts_what_all_users_records_show(opened: Opener, endpoint: Endpoint) -> None:
    limits = (Default("user", "none", 1000), Default("project", "none", 100))

    def charge(store: HostedStore, name: str, user: str, usd: int) -> None:
        subjects = (Subject("user", user), Subject("project", "p"))
        store.execute(Settle(name, "p", subjects, (), usd, "m", defaults=limits))

    def spent(store: HostedStore) -> int:
        reply = store.execute(Read("p", "project", "p", defaults=limits))
        assert isinstance(reply, Accounts)
        return reply.accounts[0].spent

    one, two = opened(), opened()
    charge(one, "a", "alice", 30)
    charge(two, "b", "bob", 40)
    assert (spent(one), spent(two), spent(opened())) == (70, 70, 70)


def test_a_project_window_begins_with_what_was_spent_in_it_for_certain(opened: Opener) -> None:
    """Nobody is refused for what a user may have spent before the window began."""
    limits = (Default("user", "day@UTC", 1000), Default("project", "day@UTC", 100))
    first = opened()
    put(first, "no window", limit=1000)
    first.execute(charge_of("alice's", usd=40))
    ask(first, Settle("c", "p", (Subject("user", "carol"),), (), 30, "m", defaults=limits))
    second = opened()
    ask(second, Settle("e", "p", (Subject("project", "p"),), (), 1, "m", defaults=limits))
    accounts = second.execute(Read("p", "project", "p", defaults=limits))
    assert isinstance(accounts, Accounts) and [state.spent for state in accounts.accounts] == [31]
    raised = (limits[0], limits[1]._replace(limit=200))
    ask(second, Settle("f", "p", (Subject("project", "p"),), (), 1, "m", defaults=raised))
    accounts = second.execute(Read("p", "project", "p", defaults=raised))
    assert isinstance(accounts, Accounts) and [state.spent for state in accounts.accounts] == [32]


def test_an_endpoint_that_forgets_everybody_is_not_believed(store: HostedStore, endpoint: Endpoint) -> None:
    """It answers "error" for nothing stored, as for everything else that goes wrong."""
    put(store, "c", limit=50)
    kept = endpoint.data.pop("p")
    with pytest.raises(BudgetStoreError, match="no budgets"):
        store.execute(charge_of("h"))
    endpoint.data["p"] = kept
    store.execute(charge_of("h"))
    assert record(endpoint)["total_budget"] == 50e-9


def test_rolls_are_asked_for_as_by_every_store(store: HostedStore) -> None:
    defaults = (Default("user", "day@UTC", 1000),)
    command = Settle("h", "p", ALICE, (), 1, "m", defaults=defaults)
    assert not isinstance(store.execute(command), Settled)
    assert ask(store, command) == Settled("h")
    assert Roll  # the bounds come from the caller
