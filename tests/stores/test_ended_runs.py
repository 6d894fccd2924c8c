"""Ended runs are forgotten, on every engine; a run that is in use never is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    Command,
    DropBudget,
    PutBudget,
    Read,
    Release,
    Reply,
    Reserve,
    SetLimits,
    Settle,
    TopUp,
)
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.manager.ended_runs import EndedRuns
from litellm_budget_plugin.stores.protocol import Store, ask

DEFAULTS = (Default("run", "none", 5000),)
KEPT, BLOCKED_KEPT = 30 * DAY, 400 * DAY
START = 20_000 * DAY + 5
LIMITS = (Limit(1000), Limit(10, "day@UTC", "gpt*", "calls"))


class Ledger:
    """A store whose time a test sets."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.now = START
        self.before_dropping: Callable[[], object] = lambda: None

    def ask(self, command: Command) -> Reply:
        if isinstance(command, DropBudget):
            self.before_dropping()
        return ask(self._store, replace(command, now=self.now))

    def hold(self, hold: str, run: str, cost: int = 1) -> None:
        subjects = (Subject("run", run),)
        self.ask(Reserve(hold, "p", subjects, ("gpt",), Amounts(cost, 1), DAY, DEFAULTS))

    def charge(self, hold: str, run: str, cost: int = 1) -> None:
        self.ask(Settle(hold, "p", (Subject("run", run),), ("gpt",), cost, "gpt", defaults=DEFAULTS))

    def enter(self, run: str, change: str) -> None:
        self.ask(SetLimits(change, "p", Subject("run", run), LIMITS))

    def runs(self) -> list[str]:
        reply = self.ask(Read("p", "run"))
        assert isinstance(reply, Accounts)
        return sorted({state.ref.subject for state in reply.accounts})

    def forget(self) -> int:
        return EndedRuns("p", KEPT, BLOCKED_KEPT).forget(self.ask)


@pytest.fixture
def ledger(engine_url: str, opened: Callable[..., Store]) -> Ledger:
    if engine_url.startswith("http"):
        pytest.skip("an endpoint has its own clock, and the store behind it is tested here")
    return Ledger(opened(engine_url, test_clock=True))


def test_what_ended_is_forgotten_and_what_lives_is_not(ledger: Ledger) -> None:
    for run in ("used", "idle", "blocked", "paid", "follows", "entered again", "held"):
        if run != "follows":
            ledger.enter(run, f"enter {run}")
        ledger.hold(f"first {run}", run)
        ledger.charge(f"first {run}", run)
    ledger.ask(PutBudget("block", "p", Subject("run", "blocked"), blocked=True))
    ledger.ask(TopUp("pay", "p", Subject("run", "paid"), 100))
    ledger.now += 20 * DAY
    ledger.hold("second used", "used", 0)
    ledger.charge("second used", "used", 0)
    ledger.enter("entered again", "again")
    ledger.enter("new", "new")
    assert ledger.forget() == 0
    ledger.now = START + KEPT + DAY
    ledger.hold("second held", "held")
    assert ledger.forget() == 2
    assert ledger.runs() == ["blocked", "entered again", "held", "new", "paid", "used"]
    ledger.now = START + BLOCKED_KEPT + 100 * DAY
    ledger.ask(Release("second held", "p"))
    ledger.forget()
    assert ledger.runs() == ["paid"]


CHANGES: dict[str, Callable[[Ledger], object]] = {
    "a call begins": lambda ledger: ledger.hold("late", "r"),
    "a call is charged": lambda ledger: ledger.charge("late", "r"),
    "it is entered": lambda ledger: ledger.enter("r", "again"),
    "it is blocked": lambda ledger: ledger.ask(PutBudget("b", "p", Subject("run", "r"), blocked=True)),
    "it is paid for": lambda ledger: ledger.ask(TopUp("t", "p", Subject("run", "r"), 5)),
    "it has another limit": lambda ledger: ledger.ask(PutBudget("l", "p", Subject("run", "r"), window="7d", limit=5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_begins_between_the_look_and_the_drop_stays(ledger: Ledger, change: str) -> None:
    ledger.enter("r", "enter")
    ledger.now += KEPT + 2 * DAY
    before = ledger.ask(Read("p", "run", "r"))
    ledger.before_dropping = lambda: CHANGES[change](ledger)
    ledger.forget()
    after = ledger.ask(Read("p", "run", "r"))
    assert isinstance(before, Accounts) and isinstance(after, Accounts)
    assert {state.ref for state in before.accounts} <= {state.ref for state in after.accounts}
    ledger.before_dropping = lambda: None
    limit = next(state for state in after.accounts if (state.ref.window, state.ref.unit) == ("none", "usd"))
    assert limit.pinned and limit.own_limit == 1000


def test_a_page_at_a_time(ledger: Ledger) -> None:
    for number in range(5):
        ledger.enter(f"r{number}", f"enter {number}")
    ledger.now += KEPT + 2 * DAY
    ended = EndedRuns("p", KEPT, BLOCKED_KEPT)

    def small(command: Command) -> Reply:
        return ledger.ask(replace(command, page=2) if isinstance(command, Read) else command)

    assert [ended.forget(small) for _ in range(3)] == [2, 2, 1]
    assert ledger.runs() == []


def test_over_every_engine_by_its_own_clock(engine_url: str, opened: Callable[..., Store]) -> None:
    store = opened(engine_url)
    for run, created_at in (("old", 5), ("new", None)):
        put = PutBudget(f"put {run}", "p", Subject("run", run), window="month@UTC", limit=1000)
        ask(store, put if created_at is None else replace(put, created_at=created_at))
    assert EndedRuns("p", KEPT, BLOCKED_KEPT).forget(lambda command: ask(store, command)) == 1
    reply = ask(store, Read("p", "run"))
    assert isinstance(reply, Accounts) and [state.ref.subject for state in reply.accounts] == ["new"]
