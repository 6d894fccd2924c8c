"""Eight processes saturate one file with Reserve and Settle for some seconds: how long a reserve waits, and whether
anybody starves. As in an application, each process syncs once a second from a thread of its own. Against the same row changes in bare sqlite3 under SQLite's own busy handler (`busy_timeout`), whose
sleeps grow, so that new arrivals overtake those who wait. Afterwards the ledger is compared with what was acknowledged.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import traffic
from benchmarks.bare import BareLedger
from benchmarks.report import Row, duration
from benchmarks.rounds import percentile
from litellm_budget_plugin.core.commands import Accounts, Read
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store

PROCESSES = 8
SECONDS = 5.0
ROUNDS = 2
PATIENCE = 30.0
SYNC_EVERY = 1.0
USERS = [f"user-{number}" for number in range(4)]
AIM = 0.050


class Work(NamedTuple):
    """The work of one process: the seconds of each reserve, and the number of acknowledged settles by user."""

    reserves: list[float]
    settled: dict[str, int]


def work(path: str, kind: str, start: Any) -> Work:
    """Reserve and settle for SECONDS in one process, in our "store" or in "bare" sqlite3."""
    reserve, settle = _stored(path) if kind == "store" else _bare(path)
    settled = dict.fromkeys(USERS, 0)
    reserves: list[float] = []
    start.wait()
    end = time.perf_counter() + SECONDS
    while (begun := time.perf_counter()) < end:
        hold, user = new_id(), USERS[len(reserves) % len(USERS)]
        reserve(hold, user)
        reserves.append(time.perf_counter() - begun)
        settle(hold, user)
        settled[user] += 1
    return Work(reserves, settled)


Step = Callable[[str, str], None]


def _stored(path: str) -> tuple[Step, Step]:
    store = open_store(f"sqlite:///{path}", timeout=PATIENCE)
    threading.Thread(target=_sync_now_and_then, args=(store,), daemon=True).start()
    return lambda hold, user: traffic.reserve(store, hold, user), lambda hold, user: traffic.settle(store, hold, user)


def _sync_now_and_then(store: Store) -> None:
    while True:
        time.sleep(SYNC_EVERY)
        store.sync()


def _bare(path: str) -> tuple[Step, Step]:
    bare = BareLedger(path, busy_timeout=PATIENCE)
    return bare.reserve, bare.settle


def saturate(path: str, kind: str) -> list[Work]:
    """Run all processes at once; they start together."""
    spawning = get_context("spawn")
    with spawning.Manager() as manager, spawning.Pool(PROCESSES) as pool:
        start = manager.Barrier(PROCESSES)
        return pool.starmap(work, [(path, kind, start)] * PROCESSES, chunksize=1)


def prepared(name: str) -> str:
    """Create a file in which every user has made one call. Returns its path."""
    path = str(Path(name).resolve())
    store = open_store(f"sqlite:///{path}")
    for user in USERS:
        traffic.reserve(store, f"first-{user}", user)
        traffic.settle(store, f"first-{user}", user)
    store.close()
    return path


def audit(path: str, acknowledged: dict[str, int]) -> tuple[str, bool]:
    """Compare the ledger with the acknowledged settles by user. Returns a description, and whether everything is correct."""
    store = open_store(f"sqlite:///{path}")
    spent = held = 0
    right = True
    for user in USERS:
        reply = ask(store, Read(traffic.PROJECT, "user", user))
        assert isinstance(reply, Accounts)
        spent += reply.accounts[0].spent
        held += reply.accounts[0].held
        right = right and reply.accounts[0].spent == acknowledged[user] * traffic.COST
    store.close()
    connection = sqlite3.connect(path)
    integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    found = f"spent ${spent / 1e9:,.4f}, held {held}, integrity {integrity}"
    return found, right and held == 0 and integrity == "ok"


class Summary(NamedTuple):
    """The results of a set of processes."""

    rate: float
    median: float
    worst_p99: float
    longest: float
    fairness: float


def summary(rounds: list[list[Work]]) -> Summary:
    """Return the medians of the rounds, and the longest wait of all. `worst_p99` is the 99th percentile of the slowest process."""
    return Summary(
        rate=median(sum(len(done.reserves) for done in works) / SECONDS for works in rounds),
        median=median(percentile([wait for done in works for wait in done.reserves], 0.5) for works in rounds),
        worst_p99=median(max(percentile(done.reserves, 0.99) for done in works) for works in rounds),
        longest=max(max(done.reserves) for works in rounds for done in works),
        fairness=median(min(len(w.reserves) for w in works) / max(len(w.reserves) for w in works) for works in rounds),
    )


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    ours, theirs = prepared("store.db"), prepared("bare.db")
    stored: list[list[Work]] = []
    bare: list[list[Work]] = []
    for _ in range(ROUNDS):
        stored.append(saturate(ours, "store"))
        bare.append(saturate(theirs, "bare"))
    acknowledged = {user: 1 + sum(done.settled[user] for works in stored for done in works) for user in USERS}
    expected = sum(acknowledged.values()) * traffic.COST
    found, right = audit(ours, acknowledged)
    mine, other = summary(stored), summary(bare)

    def row(what: str, field: str, aim: str = "-", met: bool | None = None) -> Row:
        left, right = getattr(mine, field), getattr(other, field)
        return Row(what, duration(left), f"{duration(right)} busy_timeout", f"{left / right:.3g}x", aim, met)

    return [
        row(f"reserve p50, {PROCESSES} processes", "median"),
        row("reserve p99 of the worst process", "worst_p99", f"<= {duration(AIM)}", mine.worst_p99 <= AIM),
        row("longest reserve of all", "longest"),
        Row("calls of the slowest process / of the fastest", f"{mine.fairness:.2f}", f"{other.fairness:.2f} busy_timeout",
            f"{mine.fairness / other.fairness:.2f}x", ">= 0.5", mine.fairness >= 0.5),
        Row("calls a second, all together", f"{mine.rate:,.0f}", f"{other.rate:,.0f} busy_timeout",
            f"{mine.rate / other.rate:.2f}x"),
        Row("the ledger afterwards", found, f"${expected / 1e9:,.4f} acknowledged", "equal" if right else "DIFFERS",
            "equal", right),
    ]  # fmt: skip
