"""The project's page, and everybody in it."""

from __future__ import annotations

import time
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.server.dashboard import charts
from litellm_budget_plugin.server.dashboard.pages import page
from litellm_budget_plugin.server.dashboard.reading import budgets_of, people_now
from litellm_budget_plugin.server.dashboard.roster import SHOWS, SORTS, in_order, select
from litellm_budget_plugin.server.dashboard.session import guest, visitor
from litellm_budget_plugin.server.dashboard.totals import DAYS, refusal_rate
from litellm_budget_plugin.server.site import Site

_T = TypeVar("_T", bound=str)
_LISTED = 8

router = APIRouter(include_in_schema=False)


@router.get("/")
async def overview(request: Request) -> Response:
    """What the project spends, on what, and who is near their limit."""
    who = await visitor(request)
    site = who.site
    roster = await site.rosters.ready(who.project, totals=True)
    now, budgets = await budgets_of(site.ledger, who.project, "project", who.project)
    nearest = await people_now(site.ledger, who.project, roster.nearest[:_LISTED])
    totals = roster.totals
    chart = charts.by_day(totals.days if totals else {}, now // DAY - DAYS + 1, now // DAY)
    return await page(
        who,
        "overview.html",
        roster=roster,
        now=now,
        budgets=budgets,
        totals=totals,
        chart=chart,
        days=DAYS,
        refused=refusal_rate(totals.sum) if totals else 0.0,
        nearest=[person for person in in_order(nearest, "nearest") if person.limit is not None],
    )


@router.get("/users")
async def users(request: Request) -> Response:
    """Users by who is nearest to their limit, searched and paged."""
    who = await visitor(request)
    query = request.query_params
    search = query.get("search", "").strip()
    sort, show = _one_of(SORTS, query.get("sort", "")), _one_of(SHOWS, query.get("show", ""))
    number = query.get("page", "1")
    roster = await who.site.rosters.ready(who.project)
    wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 1
    # Looking through everybody takes a while: not on the event loop.
    selection = await run_in_threadpool(select, roster, search, show, sort, wanted)
    people = in_order(await people_now(who.site.ledger, who.project, selection.people), sort)
    now = time.time_ns() // 1000
    return await page(
        who,
        "users.html",
        roster=roster,
        selection=selection._replace(people=people),
        search=search,
        sort=sort,
        show=show,
        now=now,
    )


@router.get("/projects")
async def projects(request: Request) -> Response:
    """The projects to choose from, on a server without keys."""
    site = Site.of(request)
    if not await site.door.stands_open():
        return RedirectResponse(f"{(await visitor(request)).root}/", 303)
    who = await guest(request)
    assert who.caller is not None
    caller = who.caller
    names = await site.ledger.run(lambda: list(filter(caller.opens, site.ledger.store.projects())))
    return await page(who, "projects.html", names=names)


def _one_of(accepted: tuple[_T, ...], text: str) -> _T:
    """The one that `text` is, else the first."""
    return next((one for one in accepted if one == text), accepted[0])
