"""Slices: calls admitted from memory cannot exceed a limit, are charged exactly, and leave nothing held."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, PutBudget, Read, Refused, Release, Reserve, Settle
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager import sharing
from litellm_budget_plugin.manager import slices as sliced
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.slice_keeper import SliceKeeper
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.memory import MemoryStore
from tests.manager.faraway import Faraway
from tests.stores.desk import MINUTE

CENT = 10_000_000
OpenLedger = Callable[..., BudgetLedger]


class Clock:
    """The clock of slices."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sliced, "awake_time", clock)
    return clock


@pytest.fixture
def open_ledger(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[OpenLedger]:
    """A function that opens ledgers like several processes on one store. Each has its own worker, and the test does its thread's work."""
    opened: list[BudgetLedger] = []
    shared = MemoryStore()

    def make(size: str = "0.1", limit: str | None = "100") -> BudgetLedger:
        store = Faraway(shared)
        monkeypatch.setattr(sharing, "open_store", lambda key, timeout: store)
        monkeypatch.setattr(sharing.StoreWorker, "ensure_running", lambda worker: None)
        url = f"postgresql://process-{len(opened)}/db"
        settings = BudgetSettings(project="p", store_url=url, default_limit=limit, slice=size, journal="off")
        opened.append(BudgetLedger(settings))
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


def _keeper(ledger: BudgetLedger) -> SliceKeeper:
    [task] = ledger.worker._tasks
    assert isinstance(task, SliceKeeper)
    return task


def _store(ledger: BudgetLedger) -> Faraway:
    assert isinstance(ledger.store, Faraway)
    return ledger.store


def _hold(ledger: BudgetLedger, usd: int = CENT // 10, user: str = "alice", **more: Any) -> Reserve:
    return Reserve(
        new_id(),
        "p",
        ledger.principal(user).subjects,
        ("m",),
        Amounts(usd, 1, 10),
        MINUTE,
        ledger.defaults,
        floor=Amounts(usd),
        **more,
    )


def _charge(ledger: BudgetLedger, hold: Reserve, usd: int) -> None:
    ledger.deliver(Settle(hold.hold, "p", hold.subjects, hold.models, usd, "m", 5, 5, defaults=ledger.defaults))


def _call(ledger: BudgetLedger, usd: int = CENT // 10, cost: int | None = None, user: str = "alice") -> bool:
    hold = _hold(ledger, usd, user)
    granted = isinstance(ledger.reserve(hold), Granted)
    if granted:
        _charge(ledger, hold, usd if cost is None else cost)
    return granted


def _warm(ledger: BudgetLedger, user: str = "alice") -> None:
    """Open a slice, with two calls and a run of the worker's task."""
    for _ in range(2):
        assert _call(ledger, user=user)
    _keeper(ledger).run()
    assert ledger._slices is not None and ledger._slices.any


def _state(ledger: BudgetLedger, user: str = "alice") -> Any:
    return ledger.ask(Read("p", "user", user, defaults=ledger.defaults)).accounts[0]  # type: ignore[union-attr]


def _calm(ledger: BudgetLedger) -> None:
    _keeper(ledger).retire()
    ledger.worker.flush()


def test_calls_of_a_busy_user_do_not_ask(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    ledger.worker.flush()
    asked = len(_store(ledger).asked)
    for _ in range(70):
        assert _call(ledger)
    assert len(_store(ledger).asked) == asked
    _calm(ledger)
    state = _state(ledger)
    assert (state.spent, state.held) == (72 * CENT // 10, 0)


def test_a_single_call_takes_no_slice(open_ledger: OpenLedger, clock: Clock) -> None:
    ledger = open_ledger()
    for _ in range(3):
        _call(ledger)
        _keeper(ledger).run()
        clock.now += sliced.WARM_SECONDS + 1
    assert ledger._slices is not None and not ledger._slices.any


def test_the_slice_is_held_on_the_ledger(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    ledger.worker.flush()
    assert _state(ledger).held == 10 * CENT
    hold = _hold(ledger)
    ledger.reserve(hold)
    assert _state(ledger).held == 10 * CENT
    _charge(ledger, hold, CENT // 20)
    ledger.worker.flush()
    state = _state(ledger)
    assert (state.spent, state.held) == (2 * CENT // 10 + CENT // 20, 10 * CENT - CENT // 20)


def test_a_released_call_costs_no_round_trip(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    ledger.worker.flush()
    asked = len(_store(ledger).asked)
    for _ in range(500):
        hold = _hold(ledger)
        assert isinstance(ledger.reserve(hold), Granted)
        ledger.deliver(Release(hold.hold, "p"))
    ledger.worker.flush()
    assert not any(_store(ledger).asked[asked:])
    _calm(ledger)
    assert _state(ledger).held == 0


def test_a_retry_swaps_its_hold_in_the_slice(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    first = _hold(ledger)
    ledger.reserve(first)
    second = _hold(ledger, replaces=first.hold)
    assert isinstance(ledger.reserve(second), Granted)
    large = _hold(ledger, usd=9 * CENT, replaces=second.hold)  # asks the ledger, because it is too much for a slice
    assert isinstance(ledger.reserve(large), Granted)
    third = _hold(ledger, replaces=large.hold)
    assert isinstance(ledger.reserve(third), Granted)
    _charge(ledger, third, 5)
    _calm(ledger)
    state = _state(ledger)
    assert (state.spent, state.held) == (2 * CENT // 10 + 5, 0)


def test_near_the_limit_calls_are_held_for_one_by_one(open_ledger: OpenLedger) -> None:
    """Every dollar up to the limit can be spent."""
    ledger = open_ledger(limit="0.1")
    granted = 0
    for _ in range(130):
        granted += _call(ledger)
        ledger.worker.flush()
        _keeper(ledger).run()
        ledger._slices._not_before.clear()  # type: ignore[union-attr]
        held = _state(ledger).held
        assert held * sliced.SHARE <= 10 * CENT
    assert granted == 100
    _calm(ledger)
    assert (_state(ledger).spent, _state(ledger).held) == (10 * CENT, 0)


def test_money_held_ahead_goes_back_when_an_account_is_short(open_ledger: OpenLedger) -> None:
    """Another process has spent the rest. Within a second the slice no longer blocks its calls."""
    mine, theirs = open_ledger(), open_ledger()
    _warm(mine)
    mine.worker.flush()
    assert _call(theirs, usd=9_985 * CENT)
    theirs.worker.flush()
    assert isinstance(theirs.reserve(_hold(theirs, usd=10 * CENT)), Refused)
    _keeper(mine)._renewed_at = 0.0
    _keeper(mine).run()
    mine.worker.flush()
    assert _state(theirs).held == 0
    assert isinstance(theirs.reserve(_hold(theirs, usd=10 * CENT)), Granted)


def test_a_process_s_own_slice_does_not_refuse_its_own_call(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    hold = _hold(ledger, usd=9_995 * CENT, patient=True)
    reply = ledger.reserve(hold)
    assert isinstance(reply, Refused) and reply.reason == "held" and ledger.can_reclaim()
    ledger.reclaim(hold.subjects)
    assert isinstance(ledger.reserve(hold), Granted)


def test_an_idle_slice_goes_back(open_ledger: OpenLedger, clock: Clock) -> None:
    ledger = open_ledger()
    _warm(ledger)
    clock.now += sliced.WARM_SECONDS
    _keeper(ledger)._renewed_at = 0.0
    _keeper(ledger).run()
    ledger.worker.flush()
    assert _state(ledger).held == 0


def test_a_blocked_budget_stops_calls_within_a_look(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    ledger.ask(PutBudget("c", "p", ledger.principal("alice").subjects[0], blocked=True, defaults=ledger.defaults))
    _keeper(ledger)._renewed_at = 0.0
    _keeper(ledger).run()
    assert not _call(ledger)


def test_a_slice_outlives_a_short_outage_and_no_long_one(open_ledger: OpenLedger, clock: Clock) -> None:
    ledger = open_ledger()
    _warm(ledger)
    _store(ledger).away = True
    clock.now += 60
    assert _call(ledger)
    clock.now += ledger.hold_ttl / 1e6
    with pytest.raises(BudgetStoreUnavailable):
        _call(ledger)


def test_a_slice_that_the_ledger_lost_is_not_used_on(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    [opened] = ledger._slices._open.values()  # type: ignore[union-attr]
    ledger.ask(Release(opened.id, "p"))
    _keeper(ledger)._renewed_at = 0.0
    _keeper(ledger).run()
    assert not ledger._slices._open  # type: ignore[union-attr]


def test_a_slice_s_end_stays_behind_its_charges(open_ledger: OpenLedger) -> None:
    """If it were released before them, its money would be free before they are delivered."""
    ledger = open_ledger()
    _warm(ledger)
    hold = _hold(ledger)
    ledger.reserve(hold)
    _keeper(ledger).retire()
    assert not any(isinstance(command, Release) for command in ledger.worker.delivery._queue)
    _charge(ledger, hold, 7)
    queued = [type(command) for command in ledger.worker.delivery._queue]
    assert queued[-2:] == [Settle, Release]


def test_no_thread_ends_a_slice_before_another_s_charge(open_ledger: OpenLedger) -> None:
    """The last call of a slice ends while another thread is about to deliver a charge."""
    ledger = open_ledger()
    _warm(ledger)
    slices = ledger._slices
    assert slices is not None
    first, last = _hold(ledger), _hold(ledger)
    for hold in (first, last):
        ledger.reserve(hold)
    slices.retire()
    told: list[str] = []

    def tell(command: Settle | Release) -> None:
        if command.hold == first.hold:
            other.start()
            # Far longer than the other thread needs if nothing blocks it.
            other.join(0.5)
        told.append(type(command).__name__)

    other = threading.Thread(target=_charge, args=(ledger, last, 1))
    slices._deliver = tell
    _charge(ledger, first, 1)
    other.join()
    assert told == ["Settle", "Settle", "Release"]


def test_a_slice_whose_grant_was_lost_goes_back(open_ledger: OpenLedger) -> None:
    """The ledger holds it, but its answer was lost."""
    ledger = open_ledger()
    for _ in range(2):
        _call(ledger)
    ledger.worker.flush()
    store = _store(ledger)
    store.deaf = True
    with pytest.raises(BudgetStoreUnavailable):
        _keeper(ledger).run()
    store.deaf = False
    assert _state(ledger).held == 10 * CENT
    ledger.worker.flush()
    assert _state(ledger).held == 0


def test_an_idle_slice_goes_back_after_an_outage(open_ledger: OpenLedger, clock: Clock) -> None:
    """It was retired at the moment when the ledger was unreachable for the renewal of the others."""
    ledger = open_ledger()
    _warm(ledger, "bob")
    clock.now += sliced.WARM_SECONDS
    _warm(ledger, "alice")
    _keeper(ledger)._renewed_at = 0.0
    _store(ledger).away = True
    with pytest.raises(BudgetStoreUnavailable):
        _keeper(ledger).run()
    _store(ledger).away = False
    ledger.worker.flush()
    assert (_state(ledger, "bob").held, _state(ledger, "alice").held) == (0, 10 * CENT)


def test_a_call_dearer_than_its_hold_eats_into_the_slice_only(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    assert _call(ledger, cost=9 * CENT)
    ledger.worker.flush()
    [opened] = ledger._slices._open.values()  # type: ignore[union-attr]
    assert opened.free.usd == CENT == _state(ledger).held
    _calm(ledger)
    assert (_state(ledger).held, _state(ledger).spent) == (0, 9 * CENT + 2 * CENT // 10)


class Rush:
    """Three processes whose calls, workers and outages run in any order."""

    def __init__(self, processes: list[BudgetLedger], clock: Clock, seed: int) -> None:
        self.processes, self.clock, self.dice = processes, clock, random.Random(seed)
        self.running: list[tuple[BudgetLedger, Reserve]] = []
        self.charged = 0

    def step(self) -> None:
        """Do one random step."""
        ledger = self.dice.choice(self.processes)
        happens = self.dice.choices((self.begin, self.end, self.look, self.cut), (45, 30, 20, 5))[0]
        with suppress(BudgetStoreUnavailable):
            happens(ledger)

    def begin(self, ledger: BudgetLedger) -> None:
        hold = _hold(ledger, usd=self.dice.randrange(1, CENT // 20))
        if isinstance(ledger.reserve(hold), Granted):
            self.running.append((ledger, hold))

    def end(self, _: BudgetLedger) -> None:
        if not self.running:
            return
        ledger, hold = self.running.pop(self.dice.randrange(len(self.running)))
        if self.dice.random() < 0.2:
            ledger.deliver(Release(hold.hold, "p"))
        else:
            self.charge(ledger, hold, self.dice.randrange(hold.want.usd + 1))

    def charge(self, ledger: BudgetLedger, hold: Reserve, cost: int) -> None:
        self.charged += cost
        _charge(ledger, hold, cost)

    def look(self, ledger: BudgetLedger) -> None:
        self.clock.now += self.dice.random()
        _keeper(ledger)._renewed_at = 0.0
        ledger.worker._upkeep()

    def cut(self, ledger: BudgetLedger) -> None:
        _store(ledger).away = not _store(ledger).away

    def finish(self) -> None:
        """End all outages and all calls."""
        for ledger in self.processes:
            _store(ledger).away = False
        for ledger, hold in self.running:
            self.charge(ledger, hold, hold.want.usd)
        for ledger in self.processes * 2:
            _calm(ledger)


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_passes_the_limit_or_leaves_money_behind(open_ledger: OpenLedger, clock: Clock, seed: int) -> None:
    """Also, the spend is the sum of the charges."""
    rush = Rush([open_ledger(size="0.02", limit="0.3") for _ in range(3)], clock, seed)
    ledger = rush.processes[0]
    look = Read("p", "user", "alice", defaults=ledger.defaults)
    for _ in range(600):
        rush.step()
        state = _store(ledger).store.execute(look).accounts  # type: ignore[union-attr]
        assert not state or state[0].spent + state[0].held <= 30 * CENT
    rush.finish()
    state = _state(ledger)
    assert rush.charged and (state.spent, state.held) == (rush.charged, 0)


def test_a_local_ledger_has_no_slices(caplog: pytest.LogCaptureFixture) -> None:
    ledger = BudgetLedger(BudgetSettings(store_url="memory://", slice="1"))
    assert ledger._slices is None and any("has no effect" in record.message for record in caplog.records)
    ledger.close()


def test_the_same_hold_twice_is_one(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    _warm(ledger)
    hold = _hold(ledger)
    assert ledger.reserve(hold) == ledger.reserve(replace(hold)) == Granted(hold.hold, hold.want)
    [opened] = ledger._slices._open.values()  # type: ignore[union-attr]
    assert opened.granted.minus(opened.free) == hold.want
