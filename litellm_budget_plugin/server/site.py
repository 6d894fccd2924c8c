"""The state that all pages and endpoints of one worker share."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from starlette.requests import Request

from litellm_budget_plugin.server.access import Door
from litellm_budget_plugin.server.dashboard.scanning import Rosters
from litellm_budget_plugin.server.ledger import ServedLedger


class Site(NamedTuple):
    """The shared state of a worker. `ranked` has each project's models, most expensive first, and the time when they were read.
    `changing` makes forms change limits one after the other, because each form reads a list before it writes it. `foreseen` has
    the time of each project's last forecast.
    """

    ledger: ServedLedger
    door: Door
    rosters: Rosters
    ranked: dict[str, tuple[float, tuple[str, ...]]]
    changing: asyncio.Lock
    foreseen: dict[str, float]

    @classmethod
    def of(cls, request: Request) -> Site:
        """Return the site that a request came to."""
        site: Site = request.app.state.site
        return site
