"""Workers that die, have wrong clocks, fork or are interrupted."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_budget_plugin.core.commands import Refused, Settled
from litellm_budget_plugin.stores.net.places import Places
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import MINUTE, account_of, calls_of, charge_of, hold_of
from tests.stores.faults import survives_interrupts
from tests.stores.postgres.conftest import Look
from tests.stores.processes import Child

ROOT = Path(__file__).parents[3]
Opener = Callable[..., Store]


def test_a_worker_that_is_killed_while_it_holds(url: str, opened: Opener) -> None:
    """Its hold ends at the time limit and is charged its floor, without any sweep."""
    store = opened(url, test_clock=True)
    start = 1_774_734_000_000_000
    program = (
        "import signal, sys; from litellm_budget_plugin.stores.registry import open_store; "
        "from tests.stores.desk import hold_of; store = open_store(sys.argv[1], test_clock=True); "
        f"print(type(store.execute(hold_of('h', usd=990, floor=7, now={start}))).__name__, flush=True); signal.pause()"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert worker.stdout and worker.stdout.readline() == "Granted\n"
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert account_of(store, now=start + MINUTE - 1).held == 990
    assert isinstance(store.execute(hold_of("early", usd=100, now=start + MINUTE - 1)), Refused)
    assert type(store.execute(hold_of("late", usd=100, now=start + MINUTE))).__name__ == "Granted"
    state = account_of(store, now=start + MINUTE)
    assert (state.spent, state.held) == (7, 100)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_by_an_hour(
    hours: int, url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's clock is ignored: its holds expire by the server's clock, and no other hold expires early."""
    right, before = opened(url), time.time_ns()
    right.execute(hold_of("right"))
    with monkeypatch.context() as patch:
        wrong_time = before + hours * 3600 * 10**9
        patch.setattr(time, "time_ns", lambda: wrong_time)
        patch.setattr(time, "time", lambda: wrong_time / 10**9)
        wrong = opened(url)
        wrong.execute(hold_of("wrong", now=wrong_time // 1000))
        state = account_of(wrong)
    assert state.held == account_of(right).held == 20
    assert before // 1000 <= state.start <= time.time_ns() // 1000


@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["os.fork", "C"])
def test_a_fork_with_open_connections(fork: Callable[[], int], url: str, opened: Opener, look: Look) -> None:
    """The child has its own connections, even without Python's fork hooks, and its end sends nothing on the parent's:
    the parent keeps the same session.
    """
    store = opened(f"{url}&application_name=forking")
    store.execute(charge_of("before"))
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'forking'"
    [(session,)] = look(url, sessions)

    def charge(parent: Child) -> str:
        assert store.execute(charge_of("child")) == Settled("child")
        mine = {pid for (pid,) in look(url, sessions)} - {session}
        gc.collect()
        store.close()
        return f"{len(mine)} of its own"

    assert Child(charge, fork).result() == "1 of its own"
    store.execute(charge_of("after"))
    assert (session,) in look(url, sessions)
    assert calls_of(store) == 3


def test_a_store_that_is_only_opened_has_no_connection(url: str, opened: Opener, look: Look) -> None:
    """A web server forks its workers after loading the application."""
    opened(f"{url}&application_name=loading")
    # A session ends a moment after its client has closed the connection.
    deadline = time.monotonic() + 30.0
    while look(url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'loading'"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_inside_a_command(url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or a signal handler may call the store in the middle of another command: it uses another connection."""
    store = opened(url, timeout=30.0)
    enter = Places.enter

    def entering(places: Places, deadline: float) -> object:
        place = enter(places, deadline)
        monkeypatch.setattr(Places, "enter", enter)
        store.execute(charge_of("inner"))
        return place

    monkeypatch.setattr(Places, "enter", entering)
    store.execute(charge_of("outer"))
    assert calls_of(store) == 2


def test_an_interrupt_leaves_every_place(url: str, opened: Opener) -> None:
    """Also an interrupt between taking a place and recording that it was taken."""
    survives_interrupts(opened(f"{url}&pool_size=1", timeout=10.0), "stores/postgres", last=200)
