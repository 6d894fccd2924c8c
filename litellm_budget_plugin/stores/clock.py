"""The time of a command: the machine's, or the command's own in a store that was opened with a test clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from litellm_budget_plugin.core.commands import Command


def machine_time(_: Command) -> int:
    """Microseconds since 1970-01-01 UTC by this machine's clock; what the command says is ignored."""
    return time.time_ns() // 1000


def command_time(command: Command) -> int:
    """The command's `now`, or the machine's time if it has none."""
    return machine_time(command) if command.now is None else command.now


def clock(test_clock: bool) -> Callable[[Command], int]:
    """The one that a store uses."""
    return command_time if test_clock else machine_time
