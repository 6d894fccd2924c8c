"""Charges for a networked store: gathered, delivered once, and kept while the store is unreachable."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import Command, Release, Settle, Settled
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager import delivery as deliveries
from litellm_budget_plugin.manager import journal as journals
from litellm_budget_plugin.manager import ledger as ledgers
from litellm_budget_plugin.manager import sharing
from litellm_budget_plugin.manager.breaker import FAILURES
from litellm_budget_plugin.manager.charging import Charge, settle
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.journal_file import DEAD_LETTERS
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.protocol import Outcome, Store
from tests.manager.faraway import Faraway
from tests.stores.desk import charge_of, hold_of
from tests.stores.processes import Child

OpenWorker = Callable[..., StoreWorker]


@pytest.fixture
def open_worker(tmp_path: Path) -> Iterator[OpenWorker]:
    """A function that opens a worker without its thread. The tests do the thread's work."""
    opened: list[StoreWorker] = []

    def make(store: Faraway, most: int = 1_000, journal: bool = True) -> StoreWorker:
        worker = StoreWorker(store, 1.0, Journal(str(tmp_path / "j"), "faraway://") if journal else None, most)
        worker.set_retention("p", 30 * DAY, 400 * DAY)
        worker.ensure_running = lambda: None  # type: ignore[method-assign]
        opened.append(worker)
        return worker

    yield make
    for worker in opened:
        worker.release()


def _files(tmp_path: Path) -> list[str]:
    directory = tmp_path / "j"
    return sorted(os.listdir(directory)) if directory.exists() else []


def test_many_charges_are_one_round_trip(open_worker: OpenWorker) -> None:
    store = Faraway()
    worker = open_worker(store)
    for number in range(150):
        worker.deliver(charge_of(f"h{number}"), 1.0)
    assert store.asked == []
    worker.flush()
    assert [len(commands) for commands in store.asked] == [150]
    assert store.calls() == 150


def test_charges_wait_on_the_disk_while_the_store_is_away(
    open_worker: OpenWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faraway()
    worker = open_worker(store)
    store.away = True
    worker.deliver(charge_of("a"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    worker.deliver(charge_of("b"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    assert worker.delivery.waiting == 2 and len(_files(tmp_path)) == 1
    assert any("are kept in" in record.message for record in caplog.records)
    store.away = False
    worker.deliver(charge_of("c"), 1.0)
    worker.flush()
    assert list(dict.fromkeys(store.charged[2:])) == ["a", "b", "c"]
    assert store.calls() == 3 and worker.delivery.waiting == 0 and _files(tmp_path) == []


def test_a_charge_that_comes_while_the_store_is_known_to_be_away_waits_on_the_disk(
    open_worker: OpenWorker, tmp_path: Path
) -> None:
    """The worker checks whether the store answers again before it tries to deliver anything."""
    store = Faraway()
    worker = open_worker(store)
    store.away = True
    for _ in range(FAILURES):
        with pytest.raises(BudgetStoreUnavailable):
            worker.client.ask(charge_of("probe"), 1.0)
    worker.deliver(charge_of("a"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker._upkeep()
    assert worker.delivery.waiting == 1 and len(_files(tmp_path)) == 1
    store.away = False
    worker._upkeep()
    assert store.calls() == 1 and worker.delivery.waiting == 0


def test_a_charge_whose_answer_was_lost_counts_once(open_worker: OpenWorker) -> None:
    store = Faraway()
    worker = open_worker(store)
    store.deaf = True
    worker.deliver(charge_of("a"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    store.deaf = False
    worker.flush()
    worker.flush()
    assert store.calls() == 1


def test_the_next_process_delivers_what_the_one_before_left(open_worker: OpenWorker, tmp_path: Path) -> None:
    store = Faraway()
    worker = open_worker(store)
    store.away = True
    worker.deliver(charge_of("a"), 1.0)
    worker.release()
    assert len(_files(tmp_path)) == 1 and store.closed == 1
    store.away = False
    open_worker(store).flush()
    assert store.calls() == 1 and _files(tmp_path) == []


class OneProject(Faraway):
    """A store behind a key that opens only project p."""

    def _line(self, commands: list[Command]) -> None:
        if any(command.project != "p" for command in commands):
            raise BudgetStoreError("this key opens no other project")
        super()._line(commands)


def test_what_another_project_s_process_left_holds_up_no_charge(open_worker: OpenWorker, tmp_path: Path) -> None:
    """It is left to processes with the key, which can find it."""
    dead = Journal(str(tmp_path / "j"), "faraway://")
    dead.keep([replace(charge_of("theirs"), project="q")])
    dead.close()
    store = OneProject()
    worker = open_worker(store)
    worker.deliver(charge_of("h"), 1.0)
    worker.flush()
    assert store.calls() == 1 and worker.delivery.waiting == 0
    assert len(_files(tmp_path)) == 1
    other = open_worker(Faraway())
    other.flush()
    assert not _files(tmp_path) and other.delivery.waiting == 0


def test_what_cannot_be_delivered_of_one_s_own_is_kept(open_worker: OpenWorker, tmp_path: Path) -> None:
    worker = open_worker(OneProject())
    for _ in range(2):
        with pytest.raises(BudgetStoreError, match="opens no other project"):
            worker.deliver(replace(charge_of("h"), project="q"), 1.0)
            worker.flush()
    assert worker.delivery.waiting == 2 and len(_files(tmp_path)) == 1


def test_a_killed_process_s_journal_is_delivered_once_by_one_of_many(
    open_worker: OpenWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faraway()

    def work(line: Child) -> None:
        away = Faraway()
        away.away = True
        worker = open_worker(away)
        for number in range(300):
            worker.delivery.put(charge_of(f"h{number}"))
        worker.delivery.save()
        line.tell()
        line.wait()

    child = Child(work)
    child.wait()
    os.kill(child.pid, signal.SIGKILL)
    child.result()
    workers = [open_worker(store) for _ in range(8)]
    threads = [threading.Thread(target=worker.flush) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.calls() == 300 and _files(tmp_path) == []
    assert len([record for record in caplog.records if "of a dead process" in record.message]) == 1


def test_a_charge_after_the_end_is_kept(open_worker: OpenWorker, tmp_path: Path) -> None:
    """A stream may be dropped after the callback was closed."""
    store = Faraway()
    worker = open_worker(store)
    worker.release()
    worker.deliver(charge_of("late"), 1.0)
    assert len(_files(tmp_path)) == 1
    open_worker(store).flush()
    assert store.calls() == 1


def test_an_outage_in_the_middle_of_the_journal_goes_on_where_it_was(
    open_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_BATCH", 10)
    store = Faraway()
    worker = open_worker(store)
    for number in range(50):
        worker.delivery.put(charge_of(f"h{number}"))
    worker.delivery.save()
    execute_all = store.execute_all

    def twice(commands: list[Settle], timeout: float | None = None) -> object:
        store.away = len(store.asked) >= 3
        return execute_all(commands, timeout)

    monkeypatch.setattr(store, "execute_all", twice)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    assert 0 < store.calls() < 50
    monkeypatch.setattr(store, "execute_all", execute_all)
    store.away = False
    worker.flush()
    assert store.calls() == 50


def test_what_the_store_may_have_forgotten_waits_for_a_person(
    open_worker: OpenWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After RETENTION the store forgets a settled call, and a second delivery would charge it again."""
    store = Faraway()
    worker = open_worker(store)
    month_ago = journals.time.time_ns() - 30 * DAY * 1000
    with monkeypatch.context() as patched:
        patched.setattr(journals.time, "time_ns", lambda: month_ago)
        worker.delivery.put(charge_of("old"))
        worker.delivery.save()
    worker.delivery.put(charge_of("new"))
    worker.delivery.save()
    worker.flush()
    assert store.charged[-1] == "new" and "old" not in store.charged
    [aside] = _files(tmp_path)
    assert aside.endswith(DEAD_LETTERS) and '"old"' in (tmp_path / "j" / aside).read_text()
    assert any("set aside" in record.message for record in caplog.records)


def test_a_damaged_entry_waits_for_a_person_and_keeps_back_no_other(open_worker: OpenWorker, tmp_path: Path) -> None:
    store = Faraway()
    worker = open_worker(store)
    for hold in "abc":
        worker.delivery.put(charge_of(hold))
    worker.delivery.save()
    worker.delivery.close()
    [path] = (tmp_path / "j").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"hold":"b"', b'"hold":"x"'))
    open_worker(store).flush()
    assert store.calls() == 2
    assert [name.endswith(DEAD_LETTERS) for name in _files(tmp_path)] == [True]


def test_it_says_when_it_fills_and_when_it_is_full(open_worker: OpenWorker, caplog: pytest.LogCaptureFixture) -> None:
    store = Faraway()
    store.away = True
    worker = open_worker(store, most=10)
    said = []
    for number in range(11):
        worker.deliver(charge_of(f"h{number}"), 1.0)
        caplog.clear()
        with caplog.at_level(logging.ERROR), pytest.raises(BudgetStoreUnavailable):
            worker.flush()
        said.append([record.message for record in caplog.records if "charges are waiting" in record.message])
    assert [len(messages) for messages in said] == [0] * 7 + [1, 0, 1, 1]
    assert worker.delivery.full
    store.away = False
    worker.flush()
    assert not worker.delivery.full and store.calls() == 11


def test_without_a_disk_charges_wait_in_memory(
    open_worker: OpenWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "j").write_text("a file where the directory should be")
    store = Faraway()
    store.away = True
    worker = open_worker(store)
    worker.deliver(charge_of("a"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    assert any("wait in memory only" in record.message for record in caplog.records)
    store.away = False
    (tmp_path / "j").unlink()
    worker.flush()
    assert store.calls() == 1


def test_without_a_journal_they_do_so_by_order(open_worker: OpenWorker, tmp_path: Path) -> None:
    store = Faraway()
    store.away = True
    worker = open_worker(store, journal=False)
    worker.deliver(charge_of("a"), 1.0)
    with pytest.raises(BudgetStoreUnavailable):
        worker.flush()
    store.away = False
    worker.flush()
    assert store.calls() == 1 and _files(tmp_path) == []


def test_a_charge_that_can_never_be_stored_is_given_up(
    open_worker: OpenWorker, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faraway()
    worker = open_worker(store)
    worker.deliver(charge_of("bad", usd=-1), 1.0)
    worker.deliver(charge_of("good"), 1.0)
    worker.flush()
    assert store.calls() == 1 and worker.delivery.waiting == 0
    assert any("cannot be stored" in record.message for record in caplog.records)


def test_the_thread_delivers_by_itself(tmp_path: Path) -> None:
    store = Faraway()
    worker = StoreWorker(store, 1.0, None)
    worker.deliver(charge_of("a"), 1.0)
    deadline = journals.time.monotonic() + 30
    while not store.calls():
        assert journals.time.monotonic() < deadline
        threading.Event().wait(0.01)
    worker.release()


def test_a_charge_whose_window_has_to_be_opened_comes_before_the_release_behind_it(open_worker: OpenWorker) -> None:
    """The release may be that of the slice that pays the charge, whose money must not be free before."""
    store = Faraway()
    worker = open_worker(store)
    daily = (Default("user", "day", 1000),)
    worker.delivery.put(replace(charge_of("a"), defaults=daily, parent="slice"))
    worker.delivery.put(Release("slice", "p"))
    worker.flush()
    sent = [command for commands in store.asked for command in commands]
    applied = next(place for place, command in enumerate(sent) if isinstance(command, Settle) and command.rolls)
    released = next(place for place, command in enumerate(sent) if isinstance(command, Release))
    assert applied < released
    assert store.calls() == 1


def test_a_journal_that_cannot_be_removed_holds_up_no_charge(
    open_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Faraway()
    worker = open_worker(store)
    worker.delivery.put(charge_of("kept"))
    worker.delivery.save()
    worker.delivery.put(charge_of("new"))

    def fail(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(journals.os, "unlink", fail)
        worker.flush()
    assert store.calls() == 2
    assert any("Permission denied" in record.message for record in caplog.records)
    worker.delivery._claim_at = 0.0
    worker.flush()
    assert store.calls() == 2


def test_a_call_without_time_left_says_nothing_of_the_store(
    open_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was only busy. Three such calls in a row must not stop all others from asking."""
    store = Faraway()
    monkeypatch.setattr(sharing, "open_store", lambda key, timeout: store)
    ledger = BudgetLedger(BudgetSettings(store_url="redis://somewhere", journal="off"))
    later = ledgers.time.monotonic() + 60
    for _ in range(5):
        with ledger.one_call(), monkeypatch.context() as patched:
            patched.setattr(ledgers.time, "monotonic", lambda: later)
            with pytest.raises(BudgetStoreUnavailable, match="has waited for the store"):
                ledger.ask_in_call(hold_of("h"))
    assert store.asked == [] and not ledger.worker.client.breaker.open
    ledger.ask_in_call(hold_of("h"))
    ledger.close()


def test_a_charge_by_hand_that_was_not_answered_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller gets no error, because a retry would be a second charge."""
    store = Faraway()
    monkeypatch.setattr(sharing, "open_store", lambda key, timeout: store)
    ledger = BudgetLedger(BudgetSettings(project="p", store_url="redis://somewhere", journal="off"))
    store.deaf = True
    assert settle(ledger, "alice", Charge(0.5, "m"))
    store.deaf = False
    ledger.flush()
    assert store.calls() == 1
    ledger.close()


def test_a_store_that_was_away_at_the_start_is_opened_by_a_child_too() -> None:
    """The fork happens while a thread of the parent opens the store, and that thread does not exist in the child."""
    opening, go_on = threading.Event(), threading.Event()

    def reopen(seconds: float) -> Store:
        opening.set()
        assert go_on.wait(30)
        return Faraway()

    store = LazyStore("redis://somewhere", reopen, 5.0)
    thread = threading.Thread(target=store.execute, args=(charge_of("parent"),))
    thread.start()
    assert opening.wait(30)

    def child(_: Child) -> str:
        go_on.set()
        return type(store.execute(charge_of("child"))).__name__

    said = Child(child).result()
    go_on.set()
    thread.join()
    assert said == "Settled"


def test_a_call_does_not_wait_for_all_that_waits(open_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage, more charges may wait than the store takes in the time of one call."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    worker = open_worker(Faraway(), most=100_000)

    def send(commands: Sequence[Command], timeout: float) -> list[Outcome]:
        clock[0] += 0.2
        return [Settled("h") for _ in commands]

    monkeypatch.setattr(worker.delivery, "_ask_all", send)
    for number in range(10_000):
        worker.deliver_later(charge_of(f"h{number}"))
    worker.reclaim(1.0)
    assert 0 < worker.delivery.waiting < 10_000 and clock[0] <= 1.0
    worker.flush()
    assert not worker.delivery.waiting
