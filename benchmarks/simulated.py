"""An event loop with simulated time: it never sleeps, and tasks that wait for the same moment continue in a fixed order."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from litellm_budget_plugin.hooks import waiting
from litellm_budget_plugin.manager import slice_keeper, slices, waiting_line


class _Jumping(selectors.DefaultSelector):
    """A selector that never sleeps: it adds the time-out to the simulated time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits for something that never comes"
            # Each step takes a moment. Otherwise a timer within the clock's resolution would be due for ever.
            self.now += max(timeout, 0.0) + 1e-6
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time begins at 0, and passes only while no task can run."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@contextmanager
def _clocks(loop: SimulatedLoop) -> Iterator[None]:
    """Use the loop's clock for waiting calls and for the lifetime of slices."""
    clock = SimpleNamespace(monotonic=loop.time)
    with ExitStack() as patched:
        for module in (waiting, waiting_line, slice_keeper):
            patched.enter_context(mock.patch.object(module, "time", clock))
        patched.enter_context(mock.patch.object(slices, "awake_time", loop.time))
        yield


def simulate(main: Coroutine[Any, Any, Any], seed: int) -> Any:
    """Run `main` to its end, and return its result. The seed decides the jitter of waiting calls."""
    random.seed(seed)
    loop = SimulatedLoop()
    try:
        with _clocks(loop):
            return loop.run_until_complete(main)
    finally:
        loop.close()
