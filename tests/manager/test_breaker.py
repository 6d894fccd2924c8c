"""The breaker: only the first few calls to a dead store wait for its time-out."""

from __future__ import annotations

import logging

import pytest

from litellm_budget_plugin.core.commands import Read
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager import breaker as breakers
from litellm_budget_plugin.manager.worker import StoreWorker
from tests.manager.faraway import Faraway
from tests.stores.desk import hold_of


@pytest.fixture
def worker() -> StoreWorker:
    worker = StoreWorker(Faraway(), 1.0)
    worker.ensure_running = lambda: None  # type: ignore[method-assign]
    return worker


def _call(worker: StoreWorker, hold: str = "h") -> None:
    worker.client.ask(hold_of(hold), 0.25, in_call=True)


def _fail(worker: StoreWorker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(BudgetStoreUnavailable):
            _call(worker)


def test_calls_stop_asking_a_store_that_is_away(worker: StoreWorker, caplog: pytest.LogCaptureFixture) -> None:
    store = worker.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(worker, 20)
    assert len(store.asked) == breakers.FAILURES
    assert len([record for record in caplog.records if "the store cannot be reached" in record.message]) == 1
    with pytest.raises(BudgetStoreUnavailable, match="has not answered for 0 s .*the test has cut the line"):
        _call(worker)


def test_the_worker_asks_in_their_place_and_calls_go_on_when_it_is_answered(
    worker: StoreWorker, caplog: pytest.LogCaptureFixture
) -> None:
    store = worker.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(worker, breakers.FAILURES)
    with pytest.raises(BudgetStoreUnavailable):
        worker._upkeep()
    _fail(worker, 1)
    store.away = False
    with caplog.at_level(logging.WARNING):
        worker._upkeep()
    assert isinstance(store.asked[-1][0], Read)
    assert any("answers again" in record.message for record in caplog.records)
    _call(worker)


def test_one_answer_in_between_starts_the_count_anew(worker: StoreWorker) -> None:
    store = worker.client.store
    assert isinstance(store, Faraway)
    for _ in range(5):
        store.away = True
        _fail(worker, breakers.FAILURES - 1)
        store.away = False
        _call(worker)


def test_a_call_asks_if_the_worker_cannot(worker: StoreWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread could be started. Calls must still notice that the store answers again."""
    store = worker.client.store
    assert isinstance(store, Faraway)
    store.away = True
    _fail(worker, breakers.FAILURES)
    store.away = False
    later = breakers.time.monotonic() + 60
    monkeypatch.setattr(breakers.time, "monotonic", lambda: later)
    _call(worker)


def test_a_local_store_has_no_breaker(worker: StoreWorker) -> None:
    """Every call asks a busy file, because it may be free in the next moment."""
    store = worker.client.store
    assert isinstance(store, Faraway)
    store.remote = False
    store.away = True
    _fail(worker, 10)
    assert len(store.asked) == 10
