"""What every page and every endpoint of one server shares."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from starlette.requests import Request

from litellm_budget_plugin.server.access import Door
from litellm_budget_plugin.server.dashboard.scanning import Rosters
from litellm_budget_plugin.server.ledger import ServedLedger


class Site(NamedTuple):
    """A worker's ledger, its door, who is listed on its pages, each project's models with when they were read, when the
    end of each project's budgets was last forecast, and what has one form
    after the other change limits: each reads a list before it writes it.
    """

    ledger: ServedLedger
    door: Door
    rosters: Rosters
    ranked: dict[str, tuple[float, tuple[str, ...]]]
    changing: asyncio.Lock
    foreseen: dict[str, float]

    @classmethod
    def of(cls, request: Request) -> Site:
        """The site that a request came to."""
        site: Site = request.app.state.site
        return site
