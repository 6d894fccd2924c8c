"""The present state of this process, which the gauges show. It is computed when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Standing:
    """The state of one store in this process. Amounts are nano-dollars by project.

    `held` is the money that calls in flight hold, on the ledger itself or in a slice. `calls` is the number of calls that hold money.
    `ahead` is the money that slices hold for future calls. `runs_out` is when a project's own budgets run out, in seconds since 1970.
    """

    closed: bool
    in_memory: int
    in_journal: int
    breaker_open: bool
    held: Mapping[str, int]
    calls: Mapping[str, int]
    ahead: Mapping[str, int]
    runs_out: Mapping[str, float]


class Source(Protocol):
    """An object that reports the present state."""

    def standing(self) -> Standing:
        """Return the present state."""
