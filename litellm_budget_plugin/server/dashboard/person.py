"""One user's page, and what can be changed there."""

from __future__ import annotations

import logging
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.core.commands import Reset
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server.dashboard import charts
from litellm_budget_plugin.server.dashboard.forms import CHANGES, Typed, new_nonce
from litellm_budget_plugin.server.dashboard.pages import page, render
from litellm_budget_plugin.server.dashboard.reading import Spender, spender_of
from litellm_budget_plugin.server.dashboard.session import Visitor, sender, visitor
from litellm_budget_plugin.server.dashboard.totals import DAYS, refusal_rate
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.vetting import COMMANDS

_logger = logging.getLogger("litellm_budget_plugin.server")

router = APIRouter(include_in_schema=False)


@router.get("/user")
async def user(request: Request) -> Response:
    """Limits, windows, spend, holds and refusals of one user."""
    who = await visitor(request)
    spender = await spender_of(who.site.ledger, who.project, subject_in(request.query_params.get("id", "")))
    done = request.query_params.get("done", "")
    return await run_in_threadpool(_shown, who, spender, said=CHANGES[done][1] if done in CHANGES else "")


@router.get("/user/reset")
async def reset(request: Request) -> Response:
    """Asks whether to reset."""
    who = await visitor(request)
    who.caller_writes()
    spender = await spender_of(who.site.ledger, who.project, subject_in(request.query_params.get("id", "")))
    return await page(who, "reset.html", spender=spender, nonce=new_nonce())


@router.post("/user/{change}")
async def changed(request: Request, change: str) -> Response:
    """Does what a form says, and leads back to the user's page; shows the form again if it cannot be."""
    if change not in CHANGES:
        raise Problem(404, "there is no such form")
    who, form = await sender(request)
    who.caller_writes()
    ledger = who.site.ledger
    spender = await spender_of(ledger, who.project, subject_in(form.get("id", "")))
    typed = Typed(form)
    commands = CHANGES[change][0](typed, who.project, spender)
    if not typed.errors:
        for command in commands if isinstance(commands, list) else [commands]:
            if isinstance(command, Reset):
                await ledger.execute(command)
            else:
                await ledger.execute(replace(command, defaults=ledger.defaults(who.project)))
        _logger.info("%s changed user %r of project %r: %s", who.name, spender.id, who.project, change)
        who.site.rosters.hurry(who.project)
        return RedirectResponse(who.link("/user", id=spender.id, done=change), 303)
    return await run_in_threadpool(_shown, who, spender, change=change, typed=typed, status=422)


def subject_in(text: str) -> str:
    """A user's id from an address or a form. Raises BudgetInputError for what no store can keep."""
    COMMANDS.check(text)
    if not text:
        raise BudgetInputError("the address must name a user: ?id=…")
    return text


def _shown(
    who: Visitor,
    spender: Spender,
    *,
    said: str = "",
    change: str = "",
    typed: Typed | None = None,
    status: int = 200,
) -> Response:
    chart = charts.by_day(spender.days, spender.today - DAYS + 1, spender.today)
    return render(
        who,
        "user.html",
        status,
        spender=spender,
        main=spender.main(),
        now=spender.now,
        chart=chart,
        days=DAYS,
        refused=refusal_rate(spender.total),
        said=said,
        change=change,
        typed=typed or Typed(),
        blank=Typed(),
        nonce=new_nonce(),
    )
