"""The attempts of this process that are in flight: the holds to renew, and the total of the money that they hold."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from litellm_budget_plugin.core.commands import Renew

_BATCH = 500


class LiveHold(NamedTuple):
    """An attempt in flight. It may hold no money.

    `ttl` is in microseconds; None if there is nothing to renew. `abandon` settles the attempt as dropped. `held` is in
    nano-dollars.
    """

    project: str
    ttl: int | None
    abandon: Callable[[], None]
    held: int = 0


class LiveHolds(dict[str, LiveHold]):
    """The attempts in flight, by the ids of their holds. Threads may share it."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Start empty. Called at the start, and in a forked child, where the attempts belong to the parent."""
        self.clear()
        self.renewed_at = time.monotonic()

    def holds_money(self, hold: str) -> bool:
        """Return whether an attempt with this id is in flight and holds money."""
        live = self.get(hold)
        return live is not None and live.held > 0

    def totals(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return two totals by project: the nano-dollars that attempts hold, and the number of attempts that hold money."""
        held: dict[str, int] = defaultdict(int)
        calls: dict[str, int] = defaultdict(int)
        for live in list(self.values()):
            if live.held:
                held[live.project] += live.held
                calls[live.project] += 1
        return held, calls

    def renewals(self) -> list[Renew]:
        """Return the commands that renew every hold, if a third of the shortest `ttl` has passed since `renewed_at`; else none."""
        groups: dict[tuple[str, int], list[str]] = defaultdict(list)
        for hold, live in list(self.items()):
            if live.ttl is not None:
                groups[live.project, live.ttl].append(hold)
        if not groups or time.monotonic() - self.renewed_at < min(ttl for _, ttl in groups) / 3e6:
            return []
        return [
            Renew(tuple(holds[first : first + _BATCH]), project, ttl)
            for (project, ttl), holds in groups.items()
            for first in range(0, len(holds), _BATCH)
        ]
