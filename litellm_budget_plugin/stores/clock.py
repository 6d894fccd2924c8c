"""The time of a command: the machine's, or the command's own in a store that was opened with a test clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from litellm_budget_plugin.core.commands import Command


def clock(test_clock: bool) -> Callable[[Command], int]:
    """Return a function that gives a command's time, in microseconds since 1970-01-01 UTC. Without `test_clock`, the
    command's own time is ignored.
    """
    return lambda command: command.now if test_clock and command.now is not None else time.time_ns() // 1000
