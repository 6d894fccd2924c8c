"""A server's ledger with slices (`SLICE=1`, which is some hundred calls' worth): what the gate's question costs against the same question
on `memory://`, how many round trips 1,000 calls need, and the longest pause of an event loop with 64 tasks. PostgreSQL runs on this machine: the
server of the tests, reached by a unix socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import litellm

from benchmarks.caller import ARGUMENTS
from benchmarks.pause import TASKS, Turns, calls
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn, together
from litellm_budget_plugin import BudgetCallback, BudgetSettings
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Command, Granted, Release, Reply, Reserve, Settle
from litellm_budget_plugin.manager.ledger import BudgetLedger, new_id
from litellm_budget_plugin.stores.protocol import Outcome, Store
from tests.stores.postgres.server import Server

CENT = 10_000_000
QUESTIONS = 400
ROUNDS = 15
PAUSES = 7
GATE_AIM = 2.0
TRIPS_AIM = 50


class Counting:
    """A store that counts its round trips."""

    remote = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trips = 0

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        self.trips += 1
        return self._store.execute(command, timeout)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        self.trips += bool(commands)
        return self._store.execute_all(commands, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@contextmanager
def ledger_on(url: str, ahead: str) -> Iterator[BudgetLedger]:
    """A ledger with room for everything."""
    ledger = BudgetLedger(BudgetSettings(store_url=url, default_limit="10000", slice=ahead, journal="off"))
    yield ledger
    ledger.close()


def ask_and_settle(ledger: BudgetLedger) -> Callable[[str], None]:
    """What a call does with the ledger: a hold, and a charge that is delivered later or now."""
    subjects = ledger.principal("alice").subjects

    def one(hold: str) -> None:
        command = Reserve(hold, "default", subjects, ("m",), Amounts(CENT // 10, 1, 100), 120_000_000, ledger.defaults)
        assert isinstance(ledger.reserve(command), Granted)
        ledger.deliver(Settle(hold, "default", subjects, ("m",), CENT // 50, "m", 10, 10, defaults=ledger.defaults))

    return one


def asked(ledger: BudgetLedger) -> float:
    """The seconds of one call's questions, back to back. A slice is open where there are slices."""
    one = ask_and_settle(ledger)
    deadline = time.monotonic() + 10
    while ledger._slices is not None and not ledger._slices.any:
        one(new_id())
        ledger.deliver(Release(new_id(), "default"))
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seconds = together(one, [new_id() for _ in range(QUESTIONS)])
    ledger.settler.flush()
    return seconds


def gate(server: Server) -> list[Row]:
    """The gate's question on memory, on PostgreSQL, and on PostgreSQL with slices."""
    with (
        ledger_on("memory://", "0") as memory,
        ledger_on(server.url(), "0") as exact,
        ledger_on(server.url(), "1") as sliced,
    ):
        arms = {"memory": memory, "exact": exact, "slices": sliced}
        timings = in_turn({name: partial(asked, ledger) for name, ledger in arms.items()}, ROUNDS)
    against = f"{duration(timings.seconds('memory'))} memory://"
    ratio = timings.ratio("slices", "memory")
    return [
        Row("hold + charge on the call's path, slices", duration(timings.seconds("slices")), against, f"{ratio:.2f}x",
            f"<= {GATE_AIM}x", ratio <= GATE_AIM),
        Row("the same without slices", duration(timings.seconds("exact")), against,
            f"{timings.ratio('exact', 'memory'):.2f}x"),
    ]  # fmt: skip


@contextmanager
def registered(url: str, ahead: str) -> Iterator[BudgetCallback]:
    """LiteLLM with a callback on this ledger."""
    callback = BudgetCallback(store_url=url, default_limit="10000", slice=ahead, store_timeout=10, journal="off")
    litellm.callbacks = [callback]
    yield callback
    litellm.callbacks = []
    callback.close()


def trips(url: str, ahead: str) -> int:
    """Round trips of 1,000 calls of one user, 64 at a time, after a hundred others."""

    async def work(count: int) -> None:
        async def some() -> None:
            for _ in range(count // TASKS + 1):
                await litellm.acompletion(**{**ARGUMENTS, "user": "alice"})

        await asyncio.gather(*(some() for _ in range(TASKS)))

    with registered(url, ahead) as callback:
        ledger = callback.budget_ledger
        assert ledger is not None
        counting = Counting(ledger.store)
        ledger.settler.client.store = counting
        asyncio.run(work(100))
        callback.flush()
        before = counting.trips
        asyncio.run(work(1_000))
        callback.flush()
        return round((counting.trips - before) * 1_000 / (TASKS * (1_000 // TASKS + 1)))


async def longest_pause(url: str, ahead: str) -> float:
    """The longest turn of the loop while all tasks run."""
    with registered(url, ahead):
        await calls("warming")
        await calls("warming")
        await asyncio.sleep(0.1)
        turns = Turns()
        await asyncio.gather(*(calls("warming") for _ in range(TASKS)))
        turns.stop()
        await asyncio.sleep(0.05)
    return turns.longest


def pauses(server: Server) -> list[Row]:
    """The longest pause on memory and on PostgreSQL, with and without slices."""
    loop = asyncio.new_event_loop()
    remote = server.url()

    def on_loop(url: str, ahead: str) -> float:
        return loop.run_until_complete(longest_pause(url, ahead))

    arms = {
        "memory": partial(on_loop, "memory://", "0"),
        "exact": partial(on_loop, remote, "0"),
        "slices": partial(on_loop, remote, "1"),
    }
    timings = in_turn(arms, PAUSES)
    loop.close()
    against = f"{duration(timings.seconds('memory'))} memory://"
    return [
        Row(f"longest pause of a loop with {TASKS} tasks, {name}", duration(timings.seconds(arm)), against,
            f"{timings.ratio(arm, 'memory'):.2f}x")
        for arm, name in (("exact", "without slices"), ("slices", "slices"))
    ]  # fmt: skip


def run() -> list[Row]:
    """The rows of this benchmark."""
    server = Server()
    exact, ahead = trips(server.url(), "0"), trips(server.url(), "1")
    rows = [
        *gate(server),
        Row("round trips of 1,000 calls, slices", str(ahead), f"{exact} without", f"{ahead / exact:.2f}x",
            f"<= {TRIPS_AIM}", ahead <= TRIPS_AIM),
        *pauses(server),
    ]  # fmt: skip
    server.remove()
    return rows
