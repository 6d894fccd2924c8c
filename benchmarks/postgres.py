"""The PostgreSQL store against a private server of its own on this machine, over a Unix socket, with the settings that PostgreSQL
has when nothing is set. A reserve against `SELECT 1`, the cheapest round trip there is, and against one UPDATE of one row,
the cheapest one that writes: all as prepared statements of the same client over the same connection, reserve and its UPDATE
with synchronous_commit off. A settle against the same UPDATE with synchronous_commit on: both wait for the disk. Then how
many calls (reserve and settle) 1, 2, 4 and 8 processes make in a second, each on a user of its own, and all on one account
beside, as a limit for the whole project is. Over a network, its round trip comes on top of both sides of each ratio. Here
the server and its clients share the cores.
"""

from __future__ import annotations

import time
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from benchmarks import traffic
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, each, in_turn
from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle, Settled
from litellm_budget_plugin.manager.ledger import new_id
from litellm_budget_plugin.stores.postgres.line import ServerError
from litellm_budget_plugin.stores.postgres.store import PostgresStore
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.postgres.server import Server

CALLS = 400
ROUNDS = 9
SECONDS = 3.0
AIM = 2.0
_UPDATE = "UPDATE trivial SET number = number + 1 WHERE id = 1"

MISSED = (
    "the function of a Reserve finds its account, locks it, changes it and keeps the hold in two indexes; on one machine there "
    "is no network beside which that would be little"
)


class Bare:
    """Statements of no rules, over the store's own kind of connection."""

    def __init__(self, store: PostgresStore, synchronous: str) -> None:
        self._line = store._pool.open(time.monotonic() + 30)
        self.ask(f"SET synchronous_commit = {synchronous}")

    def ask(self, sql: str) -> None:
        """One round trip."""
        [answer] = self._line.ask([(sql, ())], time.monotonic() + 30)
        if isinstance(answer, ServerError):
            raise answer


def measure(server: Server) -> Timings:
    """One call's two commands and what they are compared with, in turn."""
    store = open_store(server.url(), timeout=30.0)
    assert isinstance(store, PostgresStore)
    quick, durable = Bare(store, "off"), Bare(store, "on")
    quick.ask("CREATE TABLE trivial (id integer PRIMARY KEY, number bigint)")
    quick.ask("INSERT INTO trivial VALUES (1, 0)")
    held: list[str] = []

    def reserve(_: int) -> None:
        held.append(new_id())
        traffic.reserve(store, held[-1], "alice")

    def settle(_: int) -> None:
        traffic.settle(store, held.pop(), "alice")

    # So many stay open in every round, whichever arm comes first in it.
    for number in range(CALLS):
        reserve(number)
    arms = {
        "select": lambda: each(lambda _: quick.ask("SELECT 1"), range(CALLS)),
        "update": lambda: each(lambda _: quick.ask(_UPDATE), range(CALLS)),
        "reserve": lambda: each(reserve, range(CALLS)),
        "durable update": lambda: each(lambda _: durable.ask(_UPDATE), range(CALLS)),
        "settle": lambda: each(settle, range(CALLS)),
    }
    timings = in_turn(arms, ROUNDS)
    store.close()
    return timings


def work(url: str, user: str, shared: bool, start: Any) -> int:
    """One process: how many calls it made until the time was over."""
    subjects = (Subject("user", user), *((Subject("project", "p"),) if shared else ()))
    defaults = tuple(Default(subject.scope, "none", 10**15) for subject in subjects)
    hold = Reserve("", traffic.PROJECT, subjects, traffic.MODELS, Amounts(100, 1, 10), traffic.TTL, defaults)
    charge = Settle("", traffic.PROJECT, subjects, traffic.MODELS, 7, traffic.MODEL, 5, 5, defaults=defaults)
    store, calls = open_store(url, timeout=30.0), 0
    ask(store, replace(charge, hold=new_id()))
    start.wait()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        name = new_id()
        granted, settled = ask(store, replace(hold, hold=name)), ask(store, replace(charge, hold=name))
        assert (type(granted), type(settled)) == (Granted, Settled)
        calls += 1
    store.close()
    return calls


def saturate(server: Server, processes: int, shared: bool) -> float:
    """Calls in a second, of all processes together."""
    url = server.url()
    open_store(url, timeout=30.0).close()
    spawning = get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(processes) as pool:
        start = manager.Barrier(processes)
        calls = pool.starmap(work, [(url, f"user-{number}", shared, start) for number in range(processes)])
    return sum(calls) / SECONDS


def run() -> list[Row]:
    """The rows of this benchmark."""
    server = Server()
    try:
        timings = measure(server)
        rows = []
        for arm, other, aim in (
            ("reserve", "select", AIM),
            ("reserve", "update", None),
            ("settle", "durable update", None),
        ):
            ratio = timings.ratio(arm, other)
            rows.append(
                Row(arm, duration(timings.seconds(arm)), f"{duration(timings.seconds(other))} {other}", f"{ratio:.2f}x",
                    f"<= {aim}x" if aim else "-", ratio <= aim if aim else None)
            )  # fmt: skip
        for shared in (False, True):
            first = 0.0
            for processes in (1, 2, 4, 8):
                rate = saturate(server, processes, shared)
                first = first or rate
                what = "one account for all" if shared else "users of their own"
                rows.append(
                    Row(f"{processes} processes, {what}", f"{rate:.0f} calls/s", f"{first:.0f} calls/s of one",
                        f"{rate / first:.2f}x")
                )  # fmt: skip
        return rows
    finally:
        server.remove()
