"""The dictionary at the endpoint as a ledger: its content, when it is read, and its limitations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Read, Refused, Reserve, RollNeeded, Settle, Settled
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.hosted import HostedStore, _read_record
from litellm_budget_plugin.stores.protocol import ask
from tests.generated import examples
from tests.stores.desk import ALICE, LIMIT, MINUTE, charge_of, hold_of
from tests.stores.hosted.desk import alice, later, of, put, record
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
    state, bob = alice(store), of(store, "bob")
    assert (state.pinned, state.limit, state.spent, state.models) == (
        True,
        10**10,
        5 * 10**8,
        (("gpt-4o", 5 * 10**8),),
    )
    assert state.ref.window == "7d" and state.end == state.start + 7 * DAY
    assert bob is not None and (bob.pinned, bob.limit, bob.spent) == (True, 10**9, 0)


def test_a_hundred_charges_are_one_read_and_one_write(store: HostedStore, endpoint: Endpoint) -> None:
    outcomes = store.execute_all([charge_of(f"h{number}") for number in range(100)])
    assert outcomes == [Settled(f"h{number}") for number in range(100)]
    assert endpoint.asked == ["/get_budget", "/set_budget"]
    assert record(endpoint)["current_cost"] == 1e-6


def test_threads_that_charge_at_once_share_a_write_and_lose_nothing(store: HostedStore, endpoint: Endpoint) -> None:
    """During one exchange, the other threads collect for the next."""
    store.execute(Read("p", "user"))
    endpoint.stalled = threading.Event()
    threads = [threading.Thread(target=store.execute, args=(charge_of(f"h{number}"),)) for number in range(8)]
    for thread in threads:
        thread.start()
    while len(store._book.keys("p")) < 8:
        time.sleep(0.001)
    endpoint.stalled.set()
    for thread in threads:
        thread.join()
    assert record(endpoint)["current_cost"] == 80e-9
    assert len(endpoint.asked) <= 5


def test_threads_that_charge_without_end_lose_nothing(opened: Opener, endpoint: Endpoint) -> None:
    store = opened(timeout=20.0)

    def work(number: int) -> None:
        for turn in range(40):
            store.execute(hold_of(f"{number}-{turn}", usd=1))
            store.execute(charge_of(f"{number}-{turn}", usd=1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert record(endpoint)["current_cost"] == 320e-9
    assert (alice(store).spent, alice(store).held) == (320, 0)


def test_a_hold_needs_no_round_trip_and_waits_for_none(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(charge_of("h"))
    endpoint.asked.clear()
    endpoint.stalled = threading.Event()
    thread = threading.Thread(target=store.execute, args=(charge_of("slow"),))
    thread.start()
    while not endpoint.asked:
        time.sleep(0.001)
    assert store.execute(hold_of("a"), 0.0) == Granted("a", Amounts(10))
    assert isinstance(store.execute(hold_of("b", usd=981), 0.0), Refused)
    assert endpoint.asked == ["/get_budget"]
    endpoint.stalled.set()
    thread.join()


def test_holds_are_granted_on_what_is_known_to_be_fresh(store: HostedStore, endpoint: Endpoint) -> None:
    store.execute(hold_of("a"))
    endpoint.data["p"] = {"alice": {"total_budget": 1e-6, "current_cost": 995e-9}}
    assert isinstance(store.execute(hold_of("b")), Granted)
    later(store)
    assert isinstance(store.execute(hold_of("c")), Refused)


def test_an_endpoint_that_keeps_litellms_keys_only_sums_up_too(opened: Opener, endpoint: Endpoint) -> None:
    endpoint.strict = True
    one, two = opened(), opened()
    put(one, "limit", limit=500, window="7d")
    for turn in range(6):
        (one, two)[turn % 2].execute(charge_of(f"h{turn}", usd=turn + 1))
        one.sync()
    assert alice(one).spent == alice(two).spent == 21
    assert record(endpoint)["current_cost"] == 21e-9
    put(two, "lower", limit=50)
    assert alice(one).limit == 50


def test_followers_of_the_default_follow_the_readers(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    one.execute(charge_of("h", usd=100))
    assert record(endpoint)["total_budget"] == 1e-6
    state = of(two, defaults=(Default("user", "none", 5000),))
    assert state is not None and (state.pinned, state.limit, state.spent) == (False, 5000, 100)


def test_no_limit_survives_json(opened: Opener, endpoint: Endpoint) -> None:
    one, two = opened(), opened()
    put(one, "c", limit=None)
    assert record(endpoint)["total_budget"] == 9007199.254740991
    assert alice(two).pinned and alice(two).limit is None


def test_what_is_not_understood_is_kept_and_refuses_one_user(
    opened: Opener, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    strange = {
        "mallory": {"total_budget": "a lot"},
        "eve": 5,
        " spaces ": {"total_budget": 1},
        "alice": {"total_budget": 1e-6, "team": "blue", "model_cost": {}, "ledger": {"changed": 5}},
    }
    mallory = (Subject("user", "mallory"),)
    endpoint.data["p"] = dict(strange)
    store = opened()
    store.execute(charge_of("h"))
    assert {user: endpoint.data["p"][user] for user in strange if user != "alice"} == {
        user: data for user, data in strange.items() if user != "alice"
    }
    assert record(endpoint)["team"] == "blue" and record(endpoint)["current_cost"] == 10e-9
    assert "ledger" not in record(endpoint)
    assert "total_budget" in caplog.text and "mallory" in caplog.text and "eve" in caplog.text
    assert isinstance(store.execute(Reserve("m", "p", mallory, (), Amounts(1), MINUTE, LIMIT)), Refused)
    store.execute(Settle("late", "p", mallory, (), 6, "m", defaults=LIMIT))
    assert record(endpoint, "mallory") == {"total_budget": "a lot"}
    endpoint.data["p"]["mallory"] = {"total_budget": 1e-6}
    store.execute(charge_of("another"))
    assert record(endpoint, "mallory")["current_cost"] == 6e-9
    assert isinstance(store.execute(Reserve("n", "p", mallory, (), Amounts(1), MINUTE, LIMIT)), Granted)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
sensible = st.sampled_from(
    (0, 0.5, 1, 7, 1e9, 1_774_734_000.5, "7d", "month", "month@UTC", "x", {"m": 0.25}, {"m": -1})
)
keys = ("duration", "window", "created_at", "last_updated_at", "current_cost", "model_cost", "default")
strange_records = st.fixed_dictionaries(
    {"total_budget": sensible | anything}, optional=dict.fromkeys(keys, sensible | anything)
)


@examples(500)
@given(there=anything | strange_records)
def test_strange_records_are_read_or_refused(there: Any) -> None:
    with suppress(BudgetInputError):
        _read_record(there, 1_774_734_000 * SECOND)


def test_an_endpoint_that_forgets_everybody_is_not_believed(store: HostedStore, endpoint: Endpoint) -> None:
    """It answers "error" both if nothing is stored and if anything else fails."""
    put(store, "c", limit=50)
    kept = endpoint.data.pop("p")
    with pytest.raises(BudgetStoreError, match="no budgets"):
        store.execute(charge_of("h"))
    endpoint.data["p"] = kept
    store.execute(charge_of("h"))
    assert record(endpoint)["total_budget"] == 50e-9


def test_rolls_are_asked_for_as_by_every_store(store: HostedStore) -> None:
    command = Settle("h", "p", ALICE, (), 1, "m", defaults=(Default("user", "day@UTC", 1000),))
    assert isinstance(store.execute(command), RollNeeded)
    assert ask(store, command) == Settled("h")
