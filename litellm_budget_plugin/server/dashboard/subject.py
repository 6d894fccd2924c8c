"""The page of one user, team, tag, run or project, and what can be changed there."""

from __future__ import annotations

import difflib
import logging
from itertools import count
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import MICROS
from litellm_budget_plugin.core.models import covers_any, is_pattern
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server import history
from litellm_budget_plugin.server.dashboard import charts
from litellm_budget_plugin.server.dashboard.forms import CHANGES, EXAMPLES, WINDOWS, Typed, new_nonce
from litellm_budget_plugin.server.dashboard.pages import page, render
from litellm_budget_plugin.server.dashboard.reading import Spender, ranked_models, spender_of
from litellm_budget_plugin.server.dashboard.session import Visitor, sender, visitor
from litellm_budget_plugin.server.dashboard.totals import DAYS, PERIODS, refusal_rate
from litellm_budget_plugin.server.failures import Problem
from litellm_budget_plugin.server.vetting import COMMANDS, check_scope

_logger = logging.getLogger("litellm_budget_plugin.server")
_SUGGESTED = 20
_MOST_LIMITS = 50
"""The most limits for which a page has forms: each form names all limits."""


class Paid(NamedTuple):
    """A payment, as the page shows it."""

    id: str
    nanos: int
    micros: int
    refunded: bool


router = APIRouter(include_in_schema=False)


@router.get("/subject")
async def subject(request: Request) -> Response:
    """Show limits, windows, spend, holds, refusals, payments and changes of a subject."""
    who = await visitor(request)
    done = request.query_params.get("done", "")
    said = CHANGES[done].said if done in CHANGES else ""
    return await _shown(who, await _spender(request, who), said=said)


@router.get("/subject/reset")
async def reset(request: Request) -> Response:
    """Ask for confirmation of a reset."""
    who = await visitor(request)
    who.caller_writes()
    return await page(who, "reset.html", spender=await _spender(request, who), nonce=new_nonce())


@router.post("/subject/{change}")
async def changed(request: Request, change: str) -> Response:
    """Do what a form says, and redirect to the subject's page. If that is invalid, show the form again with the errors."""
    if change not in CHANGES:
        raise Problem(404, "there is no such form")
    who, form = await sender(request)
    who.caller_writes()
    ledger, kind, typed = who.site.ledger, CHANGES[change], Typed(form)
    subject = subject_in(who, form.get("scope", "user"), form.get("id", ""))
    command, numbers = typed.command_id(change), count()
    budgets = ledger.budgets(who.project, lambda: f"{command}:{next(numbers)}")
    what = ""
    async with who.site.changing:
        spender = await spender_of(ledger, who.project, subject)
        try:
            what = await ledger.run(kind.apply, typed, spender, budgets)
        except BudgetInputError as error:
            typed.wrong(kind.field, str(error))
    if not typed.errors:
        _logger.info("%s changed %s %r of project %r: %s", who.name, *subject, who.project, change)
        await history.remember(ledger, who.project, subject, who.label, what, command)
        who.site.rosters.hurry(who.project, subject.scope)
        return RedirectResponse(who.to(subject, done=change), 303)
    spender = await spender_of(ledger, who.project, subject)
    return await _shown(who, spender, change=change, typed=typed, status=422)


def scope_in(request: Request) -> str:
    """Return the scope that an address names, else that of users. Raises BudgetInputError for an unknown scope."""
    scope = request.query_params.get("scope") or "user"
    check_scope(scope)
    return scope


def subject_in(who: Visitor, scope: str, text: str) -> Subject:
    """Return the subject that an address or a form names. Raises BudgetInputError for a text that no store can keep."""
    COMMANDS.check(text)
    check_scope(scope)
    if scope == "project":
        return Subject(scope, who.project)
    if not text:
        raise BudgetInputError(f"the address must name a {scope}: ?id=…")
    return Subject(scope, text)


def days_in(request: Request) -> int:
    """Return the period that an address names, in days."""
    text = request.query_params.get("days", "")
    return next((days for days in PERIODS if str(days) == text), DAYS)


async def _spender(request: Request, who: Visitor) -> Spender:
    subject = subject_in(who, scope_in(request), request.query_params.get("id", ""))
    return await spender_of(who.site.ledger, who.project, subject, days_in(request))


async def _shown(
    who: Visitor,
    spender: Spender,
    *,
    said: str = "",
    change: str = "",
    typed: Typed | None = None,
    status: int = 200,
) -> Response:
    ledger, subject = who.site.ledger, spender.subject
    ranked = await ranked_models(who.site, who.project)
    payments = [
        Paid(one.id, int(one.amount.scaleb(9)), round(one.at.timestamp() * MICROS), one.refunded)
        for one in await ledger.run(ledger.budgets(who.project).payments, subject)
    ]
    forecast = await ledger.run(ledger.budgets(who.project).forecast, subject)
    changes = await ledger.run(history.changes_of, ledger.store, who.project, subject)

    def hint(model: str) -> str:
        """Return a note about a model that no call has used lately, "" for any other."""
        if not model or is_pattern(model) or not ranked or covers_any(model, ranked):
            return ""
        near = difflib.get_close_matches(model, ranked, 1)
        return f"No call here has used this model in {DAYS} days." + (f" Did you mean {near[0]}?" if near else "")

    return await run_in_threadpool(
        render,
        who,
        "subject.html",
        status,
        spender=spender,
        subject=subject,
        now=spender.now,
        chart=await run_in_threadpool(charts.by_day, spender.days, spender.first, spender.today, ranked),
        days=spender.today - spender.first + 1,
        refused=refusal_rate(spender.total),
        user_class=ledger.class_of(subject),
        payments=payments,
        forecast=forecast,
        changes=changes,
        models=ranked[:_SUGGESTED],
        most_limits=_MOST_LIMITS,
        examples=EXAMPLES,
        windows=WINDOWS,
        hint=hint,
        said=said,
        change=change,
        typed=typed or Typed(),
        blank=Typed(),
        nonce=new_nonce(),
    )
