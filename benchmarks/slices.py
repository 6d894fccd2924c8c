"""A server's ledger with slices (`SLICE=1`, which is some hundred calls' worth) and without, over a network that adds 0, 0.2 and 1 ms
to each round trip: the time of a hold and its charge on the call's path, the longest pause of an event loop with 64 tasks, and how
often 1,000 calls ask the server, made by one user or by 64. What slices cost: how long another process is refused the money of a
slice, and what is charged for the calls in flight of a killed process. PostgreSQL runs on this machine, the server of the tests; the
network is a proxy that forwards what it receives later.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import litellm

from benchmarks.caller import ARGUMENTS
from benchmarks.delay import DelayingProxy
from benchmarks.pause import TASKS, Turns, calls
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn, together
from litellm_budget_plugin import BudgetCallback, BudgetSettings
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Read, Release, Reserve, Settle
from litellm_budget_plugin.core.money import usd_text
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from tests.stores.postgres.server import Server

CENT = 10_000_000
DELAYS = (0.0, 0.0002, 0.001)
QUESTIONS = 200
ROUNDS = 9
PAUSES = 5
SLICE = "1"
TTL = 10


class Network:
    """A server behind a network that delays requests by `seconds`. Every URL of it names a new ledger."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.seconds = seconds
        self._server = server
        self._folder = Path(f"network-{seconds * 1e6:.0f}").resolve()
        self._folder.mkdir()
        socket = ".s.PGSQL.5432"
        self.proxy = DelayingProxy(str(self._folder / socket), str(server.folder / socket), seconds)

    def url(self) -> str:
        """Return the URL of an empty ledger behind the network."""
        return self._server.url(host=str(self._folder))


@contextmanager
def ledger_on(url: str, ahead: str, limit: str = "10000") -> Iterator[BudgetLedger]:
    """Open a ledger, by default with a limit that no benchmark reaches. `ahead` is the SLICE setting."""
    settings = BudgetSettings(store_url=url, default_limit=limit, slice=ahead, journal="off", store_timeout=5)
    ledger = BudgetLedger(settings)
    yield ledger
    ledger.close()


def hold_on(ledger: BudgetLedger) -> Reserve:
    """Return the command for a call's hold of a tenth of a cent."""
    subjects = ledger.principal("alice").subjects
    return Reserve(new_id(), "default", subjects, ("m",), Amounts(CENT // 10, 1, 100), 120_000_000, ledger.defaults)


def ask_and_settle(ledger: BudgetLedger) -> Callable[[object], None]:
    """Return a function that uses the ledger like one call: it holds, and delivers a charge now or later."""
    subjects = ledger.principal("alice").subjects

    def one(_: object) -> None:
        command = hold_on(ledger)
        assert isinstance(ledger.reserve(command), Granted)
        ledger.deliver(
            Settle(command.hold, "default", subjects, ("m",), CENT // 50, "m", 10, 10, defaults=ledger.defaults)
        )

    return one


def warm(ledger: BudgetLedger) -> None:
    """Make calls until a slice is open, if the ledger has slices."""
    one = ask_and_settle(ledger)
    deadline = time.monotonic() + 10
    while ledger._slices is not None and not ledger._slices.any:
        one(None)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def asked(ledger: BudgetLedger) -> float:
    """Return the mean seconds of one call's commands, run back to back."""
    warm(ledger)
    seconds = together(ask_and_settle(ledger), range(QUESTIONS))
    ledger.worker.flush()
    return seconds


@contextmanager
def registered(url: str, ahead: str) -> Iterator[BudgetCallback]:
    """Register a callback on this ledger with LiteLLM."""
    callback = BudgetCallback(store_url=url, default_limit="10000", slice=ahead, store_timeout=10, journal="off")
    litellm.callbacks = [callback]
    yield callback
    litellm.callbacks = []
    callback.close()


def questions(network: Network, ahead: str, users: int) -> int:
    """Return how often 1,000 calls, 64 at a time, send data to the server. A hundred calls warm up before."""

    async def work(count: int) -> None:
        async def some(task: int) -> None:
            for number in range(count // TASKS + 1):
                await litellm.acompletion(**{**ARGUMENTS, "user": f"user-{(task + number) % users}"})

        await asyncio.gather(*map(some, range(TASKS)))

    with registered(network.url(), ahead) as callback:
        asyncio.run(work(100))
        callback.flush()
        before = network.proxy.questions
        asyncio.run(work(1_000))
        callback.flush()
        return round((network.proxy.questions - before) * 1_000 / (TASKS * (1_000 // TASKS + 1)))


async def longest_pause(url: str, ahead: str) -> float:
    """Return the seconds of the loop's longest turn while all tasks run."""
    with registered(url, ahead):
        await calls("warming")
        await calls("warming")
        await asyncio.sleep(0.1)
        turns = Turns()
        await asyncio.gather(*(calls("warming") for _ in range(TASKS)))
        turns.stop()
        await asyncio.sleep(0.05)
    return turns.longest


def rows_over(network: Network) -> list[Row]:
    """Return the rows of one network."""
    added = f"+{network.seconds * 1e3:g} ms"
    with ledger_on(network.url(), "0") as exact, ledger_on(network.url(), SLICE) as sliced:
        gate = in_turn({"exact": partial(asked, exact), "slices": partial(asked, sliced)}, ROUNDS)
    loop = asyncio.new_event_loop()

    def on_loop(ahead: str) -> float:
        return loop.run_until_complete(longest_pause(network.url(), ahead))

    pauses = in_turn({"exact": partial(on_loop, "0"), "slices": partial(on_loop, SLICE)}, PAUSES)
    loop.close()
    rows = [
        Row(f"{added}: {what}", duration(timings.seconds("slices")), f"{duration(timings.seconds('exact'))} without",
            f"{timings.ratio('slices', 'exact'):.2f}x")
        for what, timings in (("hold + charge on the call's path", gate), (f"longest pause of a loop, {TASKS} tasks", pauses))
    ]  # fmt: skip
    for users, whose in ((1, "one user"), (TASKS, f"{TASKS} users")):
        exactly, ahead = questions(network, "0", users), questions(network, SLICE, users)
        rows.append(
            Row(
                f"{added}: questions of 1,000 calls, {whose}",
                str(ahead),
                f"{exactly} without",
                f"{ahead / exactly:.2f}x",
            )
        )
    return rows


def refusals(network: Network) -> Row:
    """Return how much money of one process's slice is refused to another process at the limit, and for how long."""
    url = network.url()
    with ledger_on(url, "0.01", "1") as mine, ledger_on(url + "&application_name=other", "0", "1") as theirs:
        warm(mine)
        spent = 0
        while isinstance(theirs.reserve(hold_on(theirs)), Granted):
            spent += CENT // 10
        begun = time.perf_counter()
        left = 100 * CENT - spent
        while not isinstance(theirs.reserve(hold_on(theirs)), Granted):
            time.sleep(0.01)
        seconds = time.perf_counter() - begun
        theirs.deliver(Release(new_id(), "default"))
    return Row("a slice of $0.01 under a limit of $1, refused to another process", f"${usd_text(left)}", "",
               f"for {duration(seconds)}")  # fmt: skip


def die(url: str, ahead: str) -> None:
    """Kill this process while it makes 64 calls."""
    settings = BudgetSettings(store_url=url, default_limit="10000", slice=ahead, journal="off", hold_ttl=TTL)
    ledger = BudgetLedger(settings)
    warm(ledger)
    ledger.flush()
    for _ in range(TASKS):
        assert isinstance(
            ledger.reserve(replace(hold_on(ledger), floor=Amounts(CENT // 10, 1), expires_after=TTL * 10**6)), Granted
        )
    os.kill(os.getpid(), signal.SIGKILL)


def charged_after_a_kill(url: str, ahead: str) -> int:
    """Return the nano-dollars that are charged for the calls of a killed process after their holds have expired."""
    process = get_context("spawn").Process(target=die, args=(url, ahead))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with ledger_on(url, "0") as ledger:
        question = Read("default", "user", "alice", defaults=ledger.defaults)
        before = ledger.ask(question).accounts[0].spent
        while ledger.ask(question).accounts[0].held:
            time.sleep(0.1)
        return ledger.ask(question).accounts[0].spent - before


def kills(network: Network) -> Row:
    """Return the row that shows the charge for the calls of a killed process."""
    sliced, exact = (usd_text(charged_after_a_kill(network.url(), ahead)) for ahead in (SLICE, "0"))
    return Row(
        f"{TASKS} calls in flight at kill -9, holding $0.001 each: charged", f"${sliced}", f"${exact} without", ""
    )


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    server = Server()
    networks = [Network(server, seconds) for seconds in DELAYS]
    rows = [row for network in networks for row in rows_over(network)]
    rows += [refusals(networks[0]), kills(networks[0])]
    for network in networks:
        network.proxy.close()
    server.remove()
    return rows
