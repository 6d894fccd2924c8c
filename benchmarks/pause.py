"""The longest pause of an event loop while 64 tasks call `acompletion(mock_response=...)`: the longest time between two
turns of the loop, with the callback on SQLite against without it. In one turn the loop may serve every one of the tasks.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import litellm

from benchmarks.caller import ARGUMENTS, registered
from benchmarks.report import Row, duration
from benchmarks.rounds import in_turn

TASKS = 64
CALLS = 3
ROUNDS = 11


class Turns:
    """Looks at the clock in every turn of the running loop."""

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
        """Look no more."""
        self._next.cancel()


async def calls(user: str) -> None:
    """What one task does."""
    for _ in range(CALLS):
        await litellm.acompletion(**{**ARGUMENTS, "user": user})


async def longest_pause(arm: str) -> float:
    """The longest turn while all tasks run."""
    with registered(arm, Path("pause.db")):
        await calls("warming")
        await asyncio.sleep(0.05)
        turns = Turns()
        await asyncio.gather(*(calls(f"user-{number}") for number in range(TASKS)))
        turns.stop()
        await asyncio.sleep(0.05)
    return turns.longest


def run() -> list[Row]:
    """The rows of this benchmark."""
    loop = asyncio.new_event_loop()

    def on_loop(arm: str) -> float:
        return loop.run_until_complete(longest_pause(arm))

    timings = in_turn({arm: partial(on_loop, arm) for arm in ("nothing", "empty", "sqlite")}, ROUNDS)
    loop.close()
    against = f"{duration(timings.seconds('nothing'))} LiteLLM alone"
    return [
        Row(what, duration(timings.seconds(arm)), against, f"{timings.ratio(arm, 'nothing'):.2f}x")
        for arm, what in (("sqlite", f"longest pause, {TASKS} tasks"), ("empty", "the same with an empty callback"))
    ]
