"""Reserve and Settle with 1,000,000 users in the file (an account, a day's totals and two marks each), against the same
with 100 users. Every call is another user's, chosen at random: with many users its rows are in no cache of SQLite's.
"""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks import traffic
from benchmarks.filling import fill, user_name
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn, together
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store

FEW, MANY = 100, 1_000_000
CALLS = 400
ROUNDS = 15
AIM = 1.3


def filled(users: int) -> Store:
    """Return a store whose file holds this number of users."""
    path = Path(f"{users}.db").resolve()
    store = open_store(f"sqlite:///{path}")
    traffic.reserve(store, "0-template", "template")
    traffic.settle(store, "0-template", "template")
    store.close()
    fill(str(path), "template", users)
    return open_store(f"sqlite:///{path}")


def measure() -> tuple[Timings, float]:
    """Measure both stores in turn. Returns the timings, and the size of the large file in bytes."""
    choose = random.Random(1)
    stores = {users: filled(users) for users in (FEW, MANY)}

    def arm(users: int) -> float:
        store = stores[users]
        store.sync()
        calls = [(new_id(), user_name(choose.randint(1, users))) for _ in range(CALLS)]

        def one(call: tuple[str, str]) -> None:
            traffic.reserve(store, *call)
            traffic.settle(store, *call)

        return together(one, calls)

    timings = in_turn({"few": lambda: arm(FEW), "many": lambda: arm(MANY)}, ROUNDS)
    for store in stores.values():
        store.close()
    return timings, Path(f"{MANY}.db").stat().st_size


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    timings, size = measure()
    ratio = timings.ratio("many", "few")
    return [
        Row(f"reserve + settle, {MANY:,} users ({size / 1e6:.0f} MB)", duration(timings.seconds("many")),
            f"{duration(timings.seconds('few'))} with {FEW} users", f"{ratio:.2f}x", f"<= {AIM}x", ratio <= AIM)
    ]  # fmt: skip
