"""The time that the callback adds to `litellm.completion` and `acompletion` on the caller's path, with a mocked answer and
the ledger in SQLite, against LiteLLM's own time without any callback. Between two calls LiteLLM's background work comes
to its end, so that only what the caller waits for is counted. Beside it: what LiteLLM itself adds for any callback (an
empty `CustomLogger`), and what the row changes of one call cost in bare sqlite3 at the same pace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from benchmarks import traffic
from benchmarks.bare import BareLedger
from benchmarks.report import Row, duration
from benchmarks.rounds import Timings, in_turn
from litellm_budget_plugin import BudgetCallback
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.stores.registry import open_store

CALLS = 40
WARMING = 5
ROUNDS = 15
PAUSE = 0.002
AIM = 0.40
AIM_IN_MEMORY = 0.20
MISSED = (
    "a call's two transactions are in the file before the caller has the answer, and a mocked answer takes LiteLLM one or two "
    "milliseconds; what these row changes cost without any rules is the row of bare sqlite3. A real call takes the provider's "
    "time as well, of which this is a part in a thousand."
)
ARGUMENTS: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 100,
    "mock_response": "The capital of France is Paris.",
    "user": "user-1",
}


@contextmanager
def registered(arm: str, path: Path) -> Iterator[None]:
    """Register "nothing", an "empty" callback or ours ("sqlite", "memory") with LiteLLM, and restore LiteLLM afterwards."""
    ours = None
    if arm == "empty":
        litellm.callbacks = [CustomLogger()]
    elif arm in ("sqlite", "memory"):
        ours = BudgetCallback(
            store_url=f"sqlite:///{path}" if arm == "sqlite" else "memory://", default_limit=1_000_000
        )
        litellm.callbacks = [ours]
    try:
        yield
    finally:
        # LiteLLM copies callbacks into its own lists.
        litellm.logging_callback_manager._reset_all_callbacks()
        if ours is not None:
            ours.close()


def sync_round(arm: str) -> float:
    """Return the median seconds of one `completion`."""
    with registered(arm, Path("caller.db")):
        taken = []
        for _ in range(WARMING + CALLS):
            begun = time.perf_counter()
            litellm.completion(**ARGUMENTS)
            taken.append(time.perf_counter() - begun)
            time.sleep(PAUSE)
    return median(taken[WARMING:])


async def async_round(arm: str) -> float:
    """Return the median seconds of one `acompletion`."""
    with registered(arm, Path("caller.db")):
        taken = []
        for _ in range(WARMING + CALLS):
            begun = time.perf_counter()
            await litellm.acompletion(**ARGUMENTS)
            taken.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)
    return median(taken[WARMING:])


def bare_round(ledger: BareLedger, user: str) -> float:
    """Return the median seconds of the row changes of one call."""
    taken = []
    for _ in range(WARMING + CALLS):
        hold = new_id()
        begun = time.perf_counter()
        ledger.reserve(hold, user)
        ledger.settle(hold, user)
        taken.append(time.perf_counter() - begun)
        time.sleep(PAUSE)
    return median(taken[WARMING:])


def bare_ledger(user: str) -> BareLedger:
    """Return a file that the store created, with one user in it, for changes by hand."""
    path = Path("bare.db").resolve()
    store = open_store(f"sqlite:///{path}")
    traffic.reserve(store, "first", user)
    traffic.settle(store, "first", user)
    store.close()
    return BareLedger(str(path))


def rows(name: str, timings: Timings) -> list[Row]:
    """Return the added time as a share of LiteLLM's own time."""
    alone = timings.seconds("nothing")
    against = f"{duration(alone)} LiteLLM alone"
    added, memory, empty = (timings.ratio(arm, "nothing") - 1 for arm in ("sqlite", "memory", "empty"))
    bare = timings.ratio("bare", "nothing")
    return [
        Row(
            f"added to {name}",
            duration(max(0.0, added) * alone),
            against,
            f"{added:+.1%}",
            f"<= {AIM:.0%}",
            added <= AIM,
        ),
        Row(
            "with memory://",
            duration(max(0.0, memory) * alone),
            against,
            f"{memory:+.1%}",
            f"<= {AIM_IN_MEMORY:.0%}",
            memory <= AIM_IN_MEMORY,
        ),
        Row("by an empty callback", duration(max(0.0, empty) * alone), against, f"{empty:+.1%}"),
        Row("the same rows in bare sqlite3", duration(timings.seconds("bare")), against, f"{bare:+.1%}"),
    ]


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    arms = ("nothing", "empty", "memory", "sqlite")
    loop = asyncio.new_event_loop()
    ledger = bare_ledger("user-1")
    bare = {"bare": partial(bare_round, ledger, "user-1")}
    found = rows("completion", in_turn({**{arm: partial(sync_round, arm) for arm in arms}, **bare}, ROUNDS))

    def on_loop(arm: str) -> float:
        return loop.run_until_complete(async_round(arm))

    found += rows("acompletion", in_turn({**{arm: partial(on_loop, arm) for arm in arms}, **bare}, ROUNDS))
    ledger.close()
    loop.close()
    return found
