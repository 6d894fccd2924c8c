"""The store beside LiteLLM's own BudgetManager, with the same protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import litellm
import pytest
import respx
from httpx import Response

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, PutBudget, Read, Reset, Settle
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.client import HttpClient
from litellm_budget_plugin.stores.protocol import ask
from tests.stores.desk import ALICE
from tests.stores.hosted.desk import later
from tests.stores.hosted.endpoint import Endpoint

Opener = Callable[..., HostedStore]
DEFAULTS = (Default("user", "none", None),)


@pytest.fixture
def theirs(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Callable[[], litellm.BudgetManager]:
    """Open LiteLLM's managers, whose saves are synchronous."""
    monkeypatch.setattr(litellm.BudgetManager, "_save_data_thread", lambda manager: manager.save_data())

    def open_one() -> litellm.BudgetManager:
        return litellm.BudgetManager("p", client_type="hosted", api_base=endpoint.url)

    return open_one


def charge(store: HostedStore, name: str, usd: float, model: str = "gpt-4o", now: int | None = None) -> None:
    ask(store, Settle(name, "p", ALICE, (), round(usd * 1e9), model, defaults=DEFAULTS, now=now))


def alice(store: HostedStore, now: int | None = None) -> AccountState:
    later(store)
    reply = store.execute(Read("p", "user", "alice", defaults=DEFAULTS, now=now))
    assert isinstance(reply, Accounts)
    [state] = reply.accounts
    return state


def test_it_speaks_in_litellms_words() -> None:
    """Paths, keys and shapes are equal."""
    with respx.mock(base_url="http://budgets.test", using="httpcore") as router:
        get = router.post("/get_budget").mock(return_value=Response(200, json={"status": "error"}))
        put = router.post("/set_budget").mock(return_value=Response(200, json={"status": "success"}))
        store = HostedStore(HttpClient(parse_address("http", "budgets.test")))
        ask(store, PutBudget("c", "p", ALICE[0], limit=10**9, only=True))
        mine = [json.loads(route.calls[-1].request.content) for route in (get, put)]
        manager = litellm.BudgetManager("p", client_type="hosted", api_base="http://budgets.test")
        manager.create_budget(1.0, "alice", "daily")
        manager.save_data()
        litellms = [json.loads(route.calls[-1].request.content) for route in (get, put)]
        assert mine[0] == litellms[0] == {"project_name": "p"}
        assert mine[1].keys() == litellms[1].keys() == {"project_name", "user_dict"}
        assert mine[1]["user_dict"] == {"alice": {"total_budget": 1.0}}
        store.close()


def test_litellms_manager_reads_what_a_store_wrote(opened: Opener, theirs: Callable[[], Any]) -> None:
    store = opened()
    ask(store, PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window="7d", only=True))
    charge(store, "a", 0.25)
    charge(store, "b", 0.5, "claude")
    charge(store, "bob's", 0.0)
    manager = theirs()
    assert manager.get_users() == ["alice"]
    assert manager.get_total_budget("alice") == 2.0
    assert manager.get_current_cost("alice") == 0.75
    assert manager.get_model_cost("alice") == {"gpt-4o": 0.25, "claude": 0.5}
    manager.update_budget_all_users()
    assert manager.get_current_cost("alice") == 0.75


def test_a_store_reads_what_litellms_manager_wrote(opened: Opener, theirs: Callable[[], Any]) -> None:
    manager, store = theirs(), opened()
    manager.create_budget(2.0, "alice", "weekly", created_at=time.time())
    manager.update_cost("alice", model="gpt-4o", input_text="hello " * 100, output_text="hello " * 100)
    state = alice(store)
    assert (state.limit, state.ref.window) == (2 * 10**9, "7d")
    assert state.spent == round(manager.get_current_cost("alice") * 1e9) > 0
    charge(store, "h", 0.125)
    assert theirs().get_current_cost("alice") == pytest.approx(manager.get_current_cost("alice") + 0.125, abs=1e-9)


def test_a_charge_that_litellms_manager_overwrites_is_gone(opened: Opener, theirs: Callable[[], Any]) -> None:
    """The manager writes the dictionary that it read when it was made, whatever has happened since, and the last writer
    wins. Later charges count.
    """
    store, manager = opened(), theirs()
    manager.create_budget(2.0, "alice", "weekly", created_at=time.time())
    charge(store, "first", 0.5)
    manager = theirs()
    charge(store, "h", 0.125)
    manager.user_dict["alice"]["current_cost"] += 0.25
    manager.user_dict["alice"]["model_cost"]["gpt-4o"] += 0.25
    manager.save_data()
    assert alice(store).spent == 750_000_000
    charge(store, "later", 0.125)
    assert theirs().get_current_cost("alice") == 0.875


def test_a_reset_by_litellms_manager_counts(opened: Opener, theirs: Callable[[], Any]) -> None:
    store = opened()
    ask(store, PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window="7d", only=True))
    charge(store, "h", 0.5)
    manager = theirs()
    manager.reset_cost("alice")
    manager.save_data()
    assert alice(store).spent == 0
    charge(store, "later", 0.25)
    assert alice(store).spent == 250_000_000
    assert theirs().get_current_cost("alice") == 0.25


@pytest.mark.parametrize("window", ["none", "1d", "7d"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_budget_that_litellms_manager_makes_anew_counts(
    opened: Opener, theirs: Callable[[], Any], window: str, reset: bool
) -> None:
    """The manager's record has none of our keys. It replaces limit and spend."""
    store = opened()
    ask(store, PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window=window, only=True))
    if reset:
        ask(store, Reset("r", "p", ALICE[0]))
    charge(store, "h", 0.5)
    manager = theirs()
    manager.create_budget(3.0, "alice", "daily", created_at=time.time())
    state = alice(store)
    assert (state.limit, state.spent, state.ref.window) == (3 * 10**9, 0, "1d")
    charge(store, "later", 0.25)
    assert theirs().get_current_cost("alice") == 0.25


def test_a_window_that_litellms_manager_ends_counts(
    opened: Opener, endpoint: Endpoint, theirs: Callable[[], Any]
) -> None:
    """The manager resets the spend and leaves our keys unchanged."""
    store = opened(test_clock=True)
    now = time.time_ns() // 1000
    begun = now - DAY - 5 * SECOND
    put = PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window="1d", bounds=(begun, begun + DAY), only=True, now=begun)
    ask(store, put)
    charge(store, "h", 0.5, now=begun + SECOND)
    manager = theirs()
    manager.update_budget_all_users()
    assert endpoint.data["p"]["alice"]["current_cost"] == 0
    state = alice(store, now + 2 * SECOND)
    assert (state.spent, state.ended) == (0, False) and state.start > begun + DAY
    charge(store, "later", 0.25, now=now + 3 * SECOND)
    assert theirs().get_current_cost("alice") == 0.25


def test_a_window_that_both_end_counts_once(opened: Opener, theirs: Callable[[], Any], endpoint: Endpoint) -> None:
    """Our remaining keys in a record that the manager has reset belong to the previous window."""
    store = opened(test_clock=True)
    now = time.time_ns() // 1000
    begun = now - DAY - 5 * SECOND
    put = PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window="1d", bounds=(begun, begun + DAY), only=True, now=begun)
    ask(store, put)
    charge(store, "h", 0.5, now=begun + SECOND)
    manager = theirs()
    endpoint.refuses_writes = True
    with pytest.raises(BudgetStoreUnavailable):
        charge(store, "late", 0.125, now=begun + DAY + SECOND)
    endpoint.refuses_writes = False
    manager.update_budget_all_users()
    charge(store, "late", 0.125, now=now + 3 * SECOND)
    assert theirs().get_current_cost("alice") == 0.125


def test_a_window_that_is_moved_by_hand_keeps_what_was_spent(opened: Opener, endpoint: Endpoint) -> None:
    store = opened()
    ask(store, PutBudget("c", "p", ALICE[0], limit=2 * 10**9, window="7d", only=True))
    charge(store, "h", 0.5)
    endpoint.data["p"]["alice"]["last_updated_at"] -= 3600.0
    assert alice(store).spent == 500_000_000
    charge(store, "later", 0.25)
    assert endpoint.data["p"]["alice"]["current_cost"] == 0.75


def test_a_default_follower_is_a_user_of_litellms_manager(opened: Opener, theirs: Callable[[], Any]) -> None:
    store = opened()
    ask(store, Settle("h", "p", (Subject("user", "bob"),), (), 5, "m", defaults=(Default("user", "none", 10**9),)))
    manager = theirs()
    assert manager.is_valid_user("bob") and manager.get_total_budget("bob") == 1.0
    assert manager.get_current_cost("bob") == 5e-9
