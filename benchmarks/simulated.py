"""An event loop whose time is simulated: it never sleeps, and what waits for the same moment goes on in a fixed order."""

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


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # which class it is depends on the machine
    """Waits for nothing: what would be slept is added to the time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits for something that never comes"
            # Each step takes a moment, as all do: else what is due within the clock's resolution would come for ever.
            self.now += max(timeout, 0.0) + 1e-6
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and passes only while nothing can be done."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@contextmanager
def _clocks(loop: SimulatedLoop) -> Iterator[None]:
    """The clocks by which calls wait and slices live are the loop's."""
    clock = SimpleNamespace(monotonic=loop.time)
    with ExitStack() as patched:
        for module in (waiting, waiting_line, slice_keeper):
            patched.enter_context(mock.patch.object(module, "time", clock))
        patched.enter_context(mock.patch.object(slices, "awake_time", loop.time))
        yield


def simulate(main: Coroutine[Any, Any, Any], seed: int) -> Any:
    """Run to the end of `main`; the jitter of waiting calls follows the seed."""
    random.seed(seed)
    loop = SimulatedLoop()
    try:
        with _clocks(loop):
            return loop.run_until_complete(main)
    finally:
        loop.close()
