"""The PostgreSQL store against a private server of its own on this machine, over a Unix socket, with the settings that PostgreSQL
has when nothing is set. A reserve and a settle against `SELECT 1`, the cheapest round trip there is, and against the bare rows
that they write: the same statements without guards and locks, pipelined in one round trip, over the same kind of connection,
all prepared. Reserves have synchronous_commit off; a settle and its rows wait for the disk. With BENCHMARK_EARLIER (see
earlier.py) against an earlier version of this package, too. Then how many calls (reserve and settle) 1, 2, 4 and 8 processes
make in a second, each on a user of its own, and all on one account beside, as a limit for the whole project is. Over a network,
its round trip comes on top of both sides of each ratio. Here the server and its clients share the cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from benchmarks import traffic
from benchmarks.earlier import Earlier, worktree
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, each, in_turn
from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Reserve, Settle, Settled
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.postgres.address import address_from
from litellm_budget_plugin.stores.postgres.line import Batch, ServerError, connect
from litellm_budget_plugin.stores.postgres.statements import Statements
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.postgres.server import Server

CALLS = 400
ROUNDS = 9
SECONDS = 3.0
ROWS_AIM = 1.3
EARLIER_AIM = 1 / 1.4

_HOLD = (
    "INSERT INTO {schema}.holds (project, id, state, at, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, model, "
    "subjects, legs) VALUES ('bare', $1, 'open', 120000000, 41000000, 1, 5000, 1000000, 1, 100, 'gpt-4o', "
    '\'[["user", "alice"]]\', \'[["user", "alice", "", "none", "usd"]]\')'
)
_ACCOUNT = "WHERE project = 'bare' AND owner = $1 AND model = '' AND period = 'none' AND unit = 'usd'"
_HELD = "UPDATE {schema}.accounts SET held = held + 41000000 " + _ACCOUNT
_SPENT = (
    "UPDATE {schema}.accounts SET held = held - 41000000, spent = spent + 12500000, "
    "models = models || jsonb_build_object('gpt-4o', (models->>'gpt-4o')::bigint + 12500000) " + _ACCOUNT
)
_SETTLED = (
    "UPDATE {schema}.holds SET state = 'settled', usd = NULL, calls = NULL, tokens = NULL, floor_usd = NULL, floor_calls = NULL, "
    "floor_tokens = NULL, model = NULL, subjects = NULL, legs = NULL WHERE project = 'bare' AND id = $1"
)
_MARK = "INSERT INTO {schema}.holds (project, id, state, at) VALUES ('bare', $1, 'alias', 120000000)"
_TOTALS = (
    "INSERT INTO {schema}.usage AS u VALUES ('bare', 'user', 'alice', 1, 'gpt-4o', 1, 1, 1, 1, 0, 0, $1) "
    "ON CONFLICT (project, owner, day, model) DO UPDATE SET spent = u.spent + 1, calls = u.calls + 1, "
    "input_tokens = u.input_tokens + 1, output_tokens = u.output_tokens + 1"
)
_OWNER = "00000000-0000-0000-0000-000000000001"


class Bare:
    """Row changes without any rules, in the ledger's own tables, over a connection like the store's."""

    def __init__(self, url: str) -> None:
        address = address_from(url)
        self._line = connect(address.attempts, address.prepare, time.monotonic() + 30)
        self._schema = address.schema
        self._flush = [Statements(address.schema).of("flush")]
        self._open: list[str] = []
        self.ask(
            [
                (sql, ())
                for sql in (
                    "SET synchronous_commit = off",
                    self._sql(
                        "INSERT INTO {schema}.accounts (project, scope, subject, model, period, unit, id, created_at, starts_at, owner, models) "
                        f"VALUES ('bare', 'user', 'alice', '', 'none', 'usd', 'bare', 0, 0, '{_OWNER}', '{{\"gpt-4o\": 0}}')"
                    ),
                )
            ]
        )

    def _sql(self, text: str) -> str:
        return text.replace("{schema}", self._schema)

    def ask(self, *batches: Batch) -> None:
        """Send the batches in one round trip. Raises ServerError."""
        for answers in self._line.ask(batches, time.monotonic() + 30):
            if isinstance(answers, ServerError):
                raise answers

    def select(self, _: int) -> None:
        """Make the cheapest round trip."""
        self.ask([("SELECT 1", ())])

    def reserve(self, _: int) -> None:
        """Write the rows of a reserve."""
        self._open.append(new_id())
        self.ask([(self._sql(_HELD), (_OWNER,)), (self._sql(_HOLD), (self._open[-1],))])

    def settle(self, _: int) -> None:
        """Write the rows of a settle, and wait for the disk."""
        hold = self._open.pop()
        rows = [(_SPENT, _OWNER), (_SETTLED, hold), (_MARK, f"alias:{hold}"), (_TOTALS, _OWNER)]
        self.ask([(self._sql(text), (value,)) for text, value in rows], self._flush)


def measure(server: Server) -> Timings:
    """Measure the two commands of one call, and the operations that they are compared with, in turn."""
    url = server.url()
    store = open_store(url, timeout=30.0)
    bare, directory = Bare(url), worktree()
    held: list[str] = []

    def reserve(_: int) -> None:
        held.append(new_id())
        traffic.reserve(store, held[-1], "alice")

    def settle(_: int) -> None:
        traffic.settle(store, held.pop(), "alice")

    calls = range(CALLS)
    arms: dict[str, Callable[[], float]] = {
        "select": lambda: each(bare.select, calls),
        "rows of a reserve": lambda: each(bare.reserve, calls),
        "reserve": lambda: each(reserve, calls),
        "rows of a settle": lambda: each(bare.settle, calls),
        "settle": lambda: each(settle, calls),
    }
    earlier = Earlier(directory, server.url()) if directory else None
    if earlier:
        arms["earlier reserve"] = lambda: earlier.each("reserve", CALLS)
        arms["earlier settle"] = lambda: earlier.each("settle", CALLS)
    # Opened first, so that every round has as many open holds, whichever arm comes first.
    for number in calls:
        reserve(number)
        bare.reserve(number)
    if earlier:
        earlier.each("reserve", CALLS)
    timings = in_turn(arms, ROUNDS)
    store.close()
    if earlier:
        earlier.close()
    return timings


def work(url: str, user: str, shared: bool, start: Any) -> int:
    """Make calls for SECONDS in one process. Returns how many."""
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
    """Return the calls per second of all processes together."""
    url = server.url()
    open_store(url, timeout=30.0).close()
    spawning = get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(processes) as pool:
        start = manager.Barrier(processes)
        calls = pool.starmap(work, [(url, f"user-{number}", shared, start) for number in range(processes)])
    return sum(calls) / SECONDS


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    server = Server()
    try:
        timings = measure(server)
        rows = []
        compared: list[tuple[str, str, float | None]] = [
            ("reserve", "select", None), ("reserve", "rows of a reserve", ROWS_AIM),
            ("settle", "select", None), ("settle", "rows of a settle", None),
        ]  # fmt: skip
        if "earlier reserve" in timings.rounds:
            compared += [("reserve", "earlier reserve", EARLIER_AIM), ("settle", "earlier settle", 1.0)]
        for arm, other, aim in compared:
            ratio = timings.ratio(arm, other)
            rows.append(
                Row(arm, duration(timings.seconds(arm)), f"{duration(timings.seconds(other))} {other}", f"{ratio:.2f}x",
                    f"<= {aim:.2g}x" if aim else "-", ratio <= aim if aim else None)
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
