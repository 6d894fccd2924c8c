"""How things stand in this process: what the gauges show, asked for when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Standing:
    """What one store's part of this process says. Amounts are nano-dollars by project.

    `held` is what calls that go on hold, whether on the ledger itself or in a slice; `calls` is how many of them hold money;
    `ahead` is what slices hold for calls to come. `runs_out` is when a project's own budgets run out, in seconds since 1970.
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
    """Something that can be asked how things stand."""

    def standing(self) -> Standing:
        """How things stand now."""
