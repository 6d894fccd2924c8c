"""The longest pause of an event loop while 64 tasks call `acompletion(mock_response=...)`: the longest time between two
turns of the loop, with the callback on SQLite against without it. In one turn the loop may serve every one of the tasks.
And with one more user who is refused again and again, because a call in flight holds the rest of their budget, in an
application with many objects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import litellm

from benchmarks.caller import ARGUMENTS, registered
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn
from litellm_budget_plugin import BudgetExceeded
from litellm_budget_plugin.manager.ids import new_id

TASKS = 64
CALLS = 3
ROUNDS = 11
OBJECTS = 1_000_000
# One call holds about $0.00009.
LIMIT = 0.00012


class Turns:
    """Measures the time between two turns of the running event loop. `longest` is in seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = time.perf_counter()
        self.longest = 0.0
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        """Stop measuring."""
        self._next.cancel()


async def calls(user: str) -> None:
    """Make the calls of one task."""
    for _ in range(CALLS):
        await litellm.acompletion(**{**ARGUMENTS, "user": user})


@asynccontextmanager
async def refusals() -> AsyncIterator[None]:
    """Within this context, refuse a user in every turn of the loop, because a call in flight holds the whole budget."""
    # A new user each time, because all rounds share one ledger.
    arguments = {**ARGUMENTS, "user": f"refused-{new_id()}"}
    litellm.callbacks[0].manager.create_budget(LIMIT, arguments["user"])
    in_flight = await litellm.acompletion(**arguments, stream=True)

    async def again_and_again() -> None:
        while True:
            with suppress(BudgetExceeded):
                await litellm.acompletion(**arguments)
                raise RuntimeError("a call was not refused: nothing was measured")
            await asyncio.sleep(0)

    asking = asyncio.create_task(again_and_again())
    try:
        yield
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        async for _ in in_flight:
            pass


async def longest_pause(arm: str) -> float:
    """Return the seconds of the longest turn while all tasks run."""
    with registered("sqlite" if arm == "refused" else arm, Path("pause.db")):
        await calls("warming")
        await asyncio.sleep(0.05)
        async with refusals() if arm == "refused" else nullcontext():
            turns = Turns()
            await asyncio.gather(*(calls(f"user-{number}") for number in range(TASKS)))
            turns.stop()
        await asyncio.sleep(0.05)
    return turns.longest


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    loop = asyncio.new_event_loop()

    def on_loop(arm: str) -> float:
        return loop.run_until_complete(longest_pause(arm))

    heap = [[number] for number in range(OBJECTS)]
    timings = in_turn({arm: partial(on_loop, arm) for arm in ("nothing", "empty", "sqlite", "refused")}, ROUNDS)
    del heap
    loop.close()
    against = f"{duration(timings.seconds('nothing'))} LiteLLM alone"
    return [
        Row(what, duration(timings.seconds(arm)), against, f"{timings.ratio(arm, 'nothing'):.2f}x")
        for arm, what in (("sqlite", f"longest pause, {TASKS} tasks"), ("empty", "the same with an empty callback"))
    ] + [
        Row(
            "the same while one user is refused again and again",
            duration(timings.seconds("refused")),
            f"{duration(timings.seconds('sqlite'))} without the refusals",
            f"{timings.ratio('refused', 'sqlite'):.2f}x",
            "at most 1.3x",
        )
    ]
