"""The page of a project, and the lists of its subjects."""

from __future__ import annotations

import time
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.server.dashboard import charts
from litellm_budget_plugin.server.dashboard.pages import page
from litellm_budget_plugin.server.dashboard.reading import people_now, ranked_models, spender_of
from litellm_budget_plugin.server.dashboard.roster import SHOWS, SORTS, in_order, select
from litellm_budget_plugin.server.dashboard.session import guest, visitor
from litellm_budget_plugin.server.dashboard.subject import days_in, scope_in
from litellm_budget_plugin.server.dashboard.totals import DAYS, refusal_rate
from litellm_budget_plugin.server.site import Site

_T = TypeVar("_T", bound=str)
_LISTED = 8

router = APIRouter(include_in_schema=False)


@router.get("/")
async def overview(request: Request) -> Response:
    """Show the project's spend, its models, and the users nearest to their limit."""
    who = await visitor(request)
    site = who.site
    roster = await site.rosters.ready(who.project, top=True)
    spender = await spender_of(site.ledger, who.project, Subject("project", who.project), days_in(request))
    nearest = await people_now(site.ledger, who.project, "user", roster.nearest[:_LISTED])
    forecast = await site.ledger.run(site.ledger.budgets(who.project).forecast, spender.subject)
    ranked = await ranked_models(site, who.project)
    chart = await run_in_threadpool(charts.by_day, spender.days, spender.first, spender.today, ranked)
    return await page(
        who,
        "overview.html",
        roster=roster,
        spender=spender,
        forecast=forecast,
        now=spender.now,
        chart=chart,
        days=spender.today - spender.first + 1,
        top_days=DAYS,
        refused=refusal_rate(spender.total),
        nearest=[person for person in in_order(nearest, "nearest") if person.limit is not None],
    )


@router.get("/subjects")
async def subjects(request: Request) -> Response:
    """Show one page of the subjects of a scope, sorted and searched."""
    who = await visitor(request)
    query = request.query_params
    search = query.get("search", "").strip()
    sort, show = _one_of(SORTS, query.get("sort", "")), _one_of(SHOWS, query.get("show", ""))
    number = query.get("page", "1")
    scope = scope_in(request)
    roster = await who.site.rosters.ready(who.project, scope)
    wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 1
    # Searching through everybody takes a while, so it runs on a thread.
    selection = await run_in_threadpool(select, roster, search, show, sort, wanted)
    people = in_order(await people_now(who.site.ledger, who.project, scope, selection.people), sort)
    now = time.time_ns() // 1000
    return await page(
        who,
        "subjects.html",
        scope=scope,
        roster=roster,
        selection=selection._replace(people=people),
        search=search,
        sort=sort,
        show=show,
        now=now,
    )


@router.get("/projects")
async def projects(request: Request) -> Response:
    """Show the projects to choose from, on a server without keys."""
    site = Site.of(request)
    if not await site.door.stands_open():
        return RedirectResponse(f"{(await visitor(request)).root}/", 303)
    who = await guest(request)
    assert who.caller is not None
    caller = who.caller
    names = await site.ledger.run(lambda: list(filter(caller.opens, site.ledger.store.projects())))
    return await page(who, "projects.html", names=names)


def _one_of(accepted: tuple[_T, ...], text: str) -> _T:
    """Return the accepted value that equals `text`, else the first one."""
    return next((one for one in accepted if one == text), accepted[0])
