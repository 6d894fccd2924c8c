"""The breaker: a dead store costs a few calls its time-out, and no call after them."""

from __future__ import annotations

import logging

import pytest

from litellm_budget_plugin.core.commands import Read
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager import breaker as breakers
from litellm_budget_plugin.manager.settler import Settler
from tests.manager.faraway import Faraway
from tests.stores.desk import hold_of


@pytest.fixture
def settler() -> Settler:
    settler = Settler(Faraway(), 1.0)
    settler.keep_synced = lambda: None  # type: ignore[method-assign]
    return settler


def _call(settler: Settler, hold: str = "h") -> None:
    settler.client.ask(hold_of(hold), 0.25, in_call=True)


def _fail(settler: Settler, times: int) -> None:
    for _ in range(times):
        with pytest.raises(BudgetStoreUnavailable):
            _call(settler)


def test_calls_stop_asking_a_store_that_is_away(settler: Settler, caplog: pytest.LogCaptureFixture) -> None:
    store = settler.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(settler, 20)
    assert len(store.asked) == breakers.FAILURES
    assert len([record for record in caplog.records if "the store is away" in record.message]) == 1
    with pytest.raises(BudgetStoreUnavailable, match="has not answered for 0 s .*the test has cut the line"):
        _call(settler)


def test_the_settler_asks_in_their_place_and_calls_go_on_when_it_is_answered(
    settler: Settler, caplog: pytest.LogCaptureFixture
) -> None:
    store = settler.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(settler, breakers.FAILURES)
    with pytest.raises(BudgetStoreUnavailable):
        settler._upkeep()
    _fail(settler, 1)
    store.away = False
    with caplog.at_level(logging.WARNING):
        settler._upkeep()
    assert isinstance(store.asked[-1][0], Read)
    assert any("answers again" in record.message for record in caplog.records)
    _call(settler)


def test_one_answer_in_between_starts_the_count_anew(settler: Settler) -> None:
    store = settler.client.store
    assert isinstance(store, Faraway)
    for _ in range(5):
        store.away = True
        _fail(settler, breakers.FAILURES - 1)
        store.away = False
        _call(settler)


def test_a_call_asks_if_the_settler_cannot(settler: Settler, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread could be started: the store must not stay away for ever."""
    store = settler.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(settler, breakers.FAILURES)
    store.away = False
    later = breakers.time.monotonic() + 60
    monkeypatch.setattr(breakers.time, "monotonic", lambda: later)
    _call(settler)


def test_a_local_store_has_no_breaker(settler: Settler) -> None:
    """A busy file is asked by every call: the next moment it may be free."""
    store = settler.client.store
    assert isinstance(store, Faraway)
    store.remote = False
    store.away = True
    _fail(settler, 10)
    assert len(store.asked) == 10
