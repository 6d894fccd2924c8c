"""/v1/subjects, /v1/refunds and /v1/usage: budgets in sentences and dollars, for people and scripts.

A subject is written `alice`, `team:search`, `tag:batch`, `run:42` or `project`. Requests give amounts as sentences ("$5").
Answers give them as exact decimal strings: US dollars, or a count of calls or tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count, groupby
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from litellm_budget_plugin.core.accounts import SCOPES, Subject
from litellm_budget_plugin.core.commands import MICROS, Accounts, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.budgets import PERIODS, Budgets, UsageRow, parse_subject
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.server import history, schemas
from litellm_budget_plugin.server.access import Caller
from litellm_budget_plugin.server.bodies import as_json, understood
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.people import counting
from litellm_budget_plugin.server.dashboard.reading import Budget, Spender, budgets_of
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.server.vetting import COMMANDS, check_scope
from litellm_budget_plugin.stores.protocol import ask

Body = dict[str, Any]
Change = Callable[[Budgets, Subject, Body], str]
"""A function that makes a change, on a thread, and returns its description for the history. Raises BudgetInputError."""

router = APIRouter(prefix="/v1", tags=["budgets"])
_DAYS = 30
_MOST_DAYS = 400
_PAGE = 100
_MOST_LIMITS = 100


@router.get("/subjects", summary="The subjects of a scope", responses=schemas.SUBJECTS)
async def subjects(request: Request, scope: str = "user", after: str = "", project: str = "") -> Response:
    """Return a page of the subjects that have a budget or have spent something, in the order of their ids. `after` is "" or the
    `after` of the page before. `project` is for servers without keys; a key has its own.
    """
    site, _, project = await _asked(request, project)
    COMMANDS.check(after)
    check_scope(scope)
    return await site.ledger.run(_page, site, project, scope, after)


def _page(site: Site, project: str, scope: str, after: str) -> Response:
    ledger = site.ledger
    command = Read(project, scope, after=after, page=_PAGE, defaults=ledger.defaults(project))
    reply = ask(site.rosters.store(), command)
    assert isinstance(reply, Accounts)
    found = []
    for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
        subject = Subject(scope, name)
        counted = counting(subject, states, ledger.defaults(project, subject), reply.now, coming=True)
        found.append(_said(Spender(subject, reply.now, tuple(Budget(state, reply.now) for state in counted), 0, {})))
    return as_json({"subjects": found, "after": reply.after})


@router.get("/subjects/{subject:path}", summary="The budgets of a subject", responses=schemas.SUBJECT)
async def subject_budgets(request: Request, subject: str, project: str = "") -> Response:
    """Return its limits, each with the amounts spent, held and left, its balance and its payments."""
    site, _, project = await _asked(request, project)
    return await _answer(site, project, _subject(subject, project))


@router.delete(
    "/subjects/{subject:path}/limits", summary="Remove limits that were set by hand", responses=schemas.SUBJECT
)
async def delete_limits(request: Request, subject: str, project: str = "") -> Response:
    """Drop them, so that the limits of the environment and the file apply again."""
    site, caller, project = await _asked(request, project)
    return await _changed(site, caller, project, subject, _clear, {})


def _clear(budgets: Budgets, subject: Subject, _: Body) -> str:
    budgets.clear_limits(subject)
    return "limits: those of the environment or a file"


def _set_limits(budgets: Budgets, subject: Subject, body: Body) -> str:
    if not isinstance(body["limits"], list) or len(body["limits"]) > _MOST_LIMITS:
        raise BudgetInputError(f'limits must be a list of up to {_MOST_LIMITS} sentences like ["$1/day", "$10/month"]')
    return f"limits: {', '.join(budgets.set_limits(subject, *body['limits']))}"


def _raise(budgets: Budgets, subject: Subject, body: Body) -> str:
    until = _time(body["until"])
    budgets.raise_limit(subject, body["amount"], until=until)
    return f"raised by {body['amount']} until {until.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _top_up(budgets: Budgets, subject: Subject, body: Body) -> str:
    budgets.top_up(subject, body["amount"], id=body["id"])
    return f"topped up by {body['amount']}: {body['id']}"


def _plain(change: Callable[[Budgets, Subject], None], said: str) -> Change:
    def apply(budgets: Budgets, subject: Subject, _: Body) -> str:
        change(budgets, subject)
        return said

    return apply


class _Kind(NamedTuple):
    """A change: its function, the required fields of its body, and its entry in the OpenAPI document."""

    apply: Change
    required: tuple[str, ...]
    body: schemas.Schema
    summary: str
    description: str
    method: str = "POST"


_KINDS = {
    "limits": _Kind(
        _set_limits, ("limits",), schemas.SET_LIMITS, "Make these the limits of a subject, all of them",
        "In one step; limits of the environment or a file no longer apply to it. Spend in a window that is still open "
        "counts.", "PUT",
    ),
    "block": _Kind(
        _plain(Budgets.block, "blocked"), (), schemas.CHANGE, "Refuse every call of a subject",
        "In every process, from the next call on. This stops a run.",
    ),
    "unblock": _Kind(
        _plain(Budgets.unblock, "unblocked"), (), schemas.CHANGE, "Let a subject call again", "Within its limits.",
    ),
    "reset": _Kind(
        _plain(Budgets.reset, "reset what was spent"), (), schemas.CHANGE,
        "Set the spend of the open windows to zero", "Totals by day and a balance are kept.",
    ),
    "raise": _Kind(
        _raise, ("amount", "until"), schemas.RAISE, "Raise the limits of a subject until a time",
        "Each of its limits in US dollars for all models. If sent again, the new amount and time replace the old ones.",
    ),
    "top-up": _Kind(
        _top_up, ("amount", "id"), schemas.TOP_UP, "Add to the balance of a subject",
        "Once for each `id`, such as an invoice's number. Its calls need room in the balance from then on.",
    ),
}  # fmt: skip


def _endpoint(kind: _Kind) -> Callable[..., Awaitable[Response]]:
    async def change(request: Request, subject: str, project: str = "") -> Response:
        site, caller, project = await _asked(request, project)
        body = await understood(request, lambda _, body: _fields(body, *kind.required))
        return await _changed(site, caller, project, subject, kind.apply, body)

    return change


for _name, _kind in _KINDS.items():
    router.add_api_route(
        f"/subjects/{{subject:path}}/{_name}",
        _endpoint(_kind),
        methods=[_kind.method],
        name=_name,
        summary=_kind.summary,
        description=_kind.description,
        openapi_extra=schemas.body(_kind.body),
        responses=schemas.SUBJECT,
    )


@router.post(
    "/refunds", summary="Take a top-up back", openapi_extra=schemas.body(schemas.REFUND), responses=schemas.REFUNDED
)
async def refund(request: Request, project: str = "") -> Response:
    """Refund the whole top-up, once. Money of it that was spent stays spent, so the balance can become negative."""
    site, caller, project = await _asked(request, project)
    caller.check_writes()
    body = await understood(request, lambda _, body: _fields(body, "id"))
    payment = checked_id(body["id"], "id")
    await site.ledger.run(site.ledger.budgets(project).refund, payment)
    return as_json({"id": payment, "refunded": True})


@router.get("/usage", summary="Totals by day, model or subject", responses=schemas.USAGE)
async def usage(
    request: Request, by: str = "day", since: str = "", until: str = "", subject: str = "", project: str = ""
) -> Response:
    """Return the totals of the days from `since` to `until` (like 2026-11-01; UTC, both included; default: the last 30), for
    all or for one `subject`. `by` is day, model, user, team, tag, run or project.
    """
    site, _, project = await _asked(request, project)
    named = _subject(subject, project) if subject else None
    last = _day(until, "until") or datetime.now(timezone.utc).date()
    first = _day(since, "since") or last - timedelta(days=min(_DAYS - 1, last.toordinal() - 1))
    if by not in PERIODS:
        raise BudgetInputError(f"by must be one of {', '.join(PERIODS)}, got {by!r:.80}")
    if (last - first).days >= _MOST_DAYS:
        raise BudgetInputError(f"at most {_MOST_DAYS} days can be asked for at once")
    budgets = site.ledger.budgets(project, store=await site.ledger.run(site.rosters.store))
    return await site.ledger.run(_usage, budgets, by, first, last, named)


def _usage(budgets: Budgets, by: str, first: date, last: date, subject: Subject | None) -> Response:
    # For many subjects, one day is read at a time.
    step = 1 if by in SCOPES and subject is None else _MOST_DAYS
    sums: dict[str, UsageRow] = {}
    while first <= last:
        until = min(last, first + timedelta(days=step - 1))
        for row in budgets.usage(since=first, until=until, by=by, subject=subject):
            known = sums.get(row.key)
            sums[row.key] = row if known is None else UsageRow(row.key, *map(_plus, known[1:], row[1:]))
        first = until + timedelta(days=1)
    rows = [{**sums[key]._asdict(), "spent": _usd(sums[key].spent)} for key in sorted(sums)]
    return as_json({"by": by, "rows": rows})


def _usd(amount: Decimal) -> str:
    return wording.exact(int(amount.scaleb(9)))


def _plus(one: Any, other: Any) -> Any:
    return one + other


async def _asked(request: Request, project: str) -> tuple[Site, Caller, str]:
    """Return the site, the caller, and the requested project."""
    site = Site.of(request)
    caller = await site.door.caller(request)
    if not project and caller.project is None:
        raise BudgetInputError("this server has no keys, so the address must name a project: ?project=…")
    project = checked_id(project or caller.project, "project")
    caller.check_project(project)
    return site, caller, project


async def _changed(site: Site, caller: Caller, project: str, text: str, change: Change, body: Body) -> Response:
    caller.check_writes()
    subject, ledger = _subject(text, project), site.ledger
    command, numbers = checked_id(body.get("id", new_id()), "id"), count()
    budgets = ledger.budgets(project, lambda: f"http:{command}:{next(numbers)}")
    said = await ledger.run(change, budgets, subject, body)
    await history.remember(ledger, project, subject, caller.label or caller.name, said, command)
    site.rosters.hurry(project, subject.scope)
    return await _answer(site, project, subject)


def _fields(body: Body, *required: str) -> Body:
    """Return the checked body of a request. It may always have an `id`, so that sending the same request again changes nothing
    more.
    """
    COMMANDS.check(body)
    if not set(required) <= body.keys() <= {*required, "id"}:
        raise BudgetInputError(f"the body must be an object with {' and '.join((*required, 'perhaps id'))}")
    return body


def _subject(text: str, project: str) -> Subject:
    COMMANDS.check(text)
    return Subject("project", project) if text == "project" else parse_subject(text)


def _time(text: Any) -> datetime:
    try:
        at: datetime | None = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.year > wording.LAST_YEAR:
        raise BudgetInputError(f"until must be a time like 2030-12-31T18:00:00Z, got {text!r:.80}")
    return at


def _day(text: str, what: str) -> date | None:
    try:
        day = date.fromisoformat(text) if text else None
    except ValueError:
        day = date.min
    if day is not None and not 1970 <= day.year <= wording.LAST_YEAR:
        raise BudgetInputError(f"{what} must be a day like 2026-11-01, got {text!r:.80}")
    return day


async def _answer(site: Site, project: str, subject: Subject) -> Response:
    now, budgets = await budgets_of(site.ledger, project, subject)
    paid = await site.ledger.run(site.ledger.budgets(project).payments, subject)
    found = await site.ledger.run(site.ledger.budgets(project).forecast, subject)
    forecast = None if found is None else {**found._asdict(), "runs_out_at": wording.iso(_micros(found.runs_out_at))}
    payments = [{**each._asdict(), "amount": _usd(each.amount), "at": wording.iso(_micros(each.at))} for each in paid]
    return as_json({**_said(Spender(subject, now, budgets, 0, {})), "payments": payments, "forecast": forecast})


def _micros(at: datetime) -> int:
    return round(at.timestamp() * MICROS)


def _said(spender: Spender) -> dict[str, Any]:
    subject = spender.subject
    balance = spender.balance
    return {
        "subject": "project" if subject.scope == "project" else f"{subject.scope}:{subject.id}",
        "blocked": spender.blocked,
        "set_by_hand": spender.by_hand,
        "balance": None if balance is None else wording.exact(balance),
        "limits": [_limit(each) for each in spender.budgets if each.limited],
    }


def _limit(budget: Budget) -> dict[str, Any]:
    state, unit = budget.state, budget.state.ref.unit
    return {
        "limit": budget.sentence,
        "unit": unit,
        "spent": wording.exact(state.spent, unit),
        "held": wording.exact(state.held, unit),
        "remaining": None if budget.left is None else wording.exact(budget.left, unit),
        "resets_at": wording.iso(state.end) if state.end is not None and not state.ended else None,
        "raised_by": wording.exact(state.raised_by, unit) if budget.raised else None,
        "raised_until": wording.iso(state.raised_until) if budget.raised else None,
    }
