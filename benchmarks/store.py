"""Reserve and Settle of one call on the SQLite store, against the same row changes written by hand in bare sqlite3: the
same tables, the same settings of the connection, the same two transactions, 100 users. The rest is what the rules of the
ledger cost: its checks, time limits, windows, exactly-once marks, and the conversion of rows.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import traffic
from benchmarks.bare import BareLedger
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn, together
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.registry import open_store

USERS = [f"user-{number:03}" for number in range(100)]
CALLS = 400
ROUNDS = 15
AIM = 2.5


def measure() -> Timings:
    """Measure bare sqlite3 and the store on two files, and a ledger in memory, in turn."""
    path = str(Path("bare.db").resolve())
    maker = open_store(f"sqlite:///{path}")
    for user in USERS:
        traffic.reserve(maker, f"first-{user}", user)
        traffic.settle(maker, f"first-{user}", user)
    maker.close()
    bare, store, memory = BareLedger(path), open_store("sqlite:///store.db"), open_store("memory://")

    def one_bare(call: tuple[str, str]) -> None:
        bare.reserve(*call)
        bare.settle(*call)

    def one_stored(call: tuple[str, str]) -> None:
        traffic.reserve(store, *call)
        traffic.settle(store, *call)

    def one_in_memory(call: tuple[str, str]) -> None:
        traffic.reserve(memory, *call)
        traffic.settle(memory, *call)

    def calls() -> list[tuple[str, str]]:
        return [(new_id(), USERS[number % len(USERS)]) for number in range(CALLS)]

    def round_bare() -> float:
        bare.shorten_log()
        return together(one_bare, calls())

    def round_stored() -> float:
        store.sync()
        return together(one_stored, calls())

    arms = {"bare": round_bare, "store": round_stored, "memory": lambda: together(one_in_memory, calls())}
    timings = in_turn(arms, ROUNDS)
    bare.close()
    store.close()
    return timings


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    timings = measure()
    ratio = timings.ratio("store", "bare")
    against = f"{duration(timings.seconds('bare'))} bare sqlite3"
    in_memory = timings.ratio("memory", "bare")
    return [
        Row("reserve + settle, sqlite://", duration(timings.seconds("store")), against, f"{ratio:.2f}x",
            f"<= {AIM}x", ratio <= AIM),
        Row("reserve + settle, memory:// (the rules alone)", duration(timings.seconds("memory")), against,
            f"{in_memory:.2f}x"),
    ]  # fmt: skip
