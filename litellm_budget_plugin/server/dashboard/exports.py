"""Exports as CSV and JSON: the budgets of all subjects of a scope, and one subject's days. Amounts are exact."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from fastapi import APIRouter, Request
from starlette.responses import Response

from litellm_budget_plugin.core.accounts import Subject, Usage, UsageKey
from litellm_budget_plugin.core.commands import AccountState, Read, ReadUsage
from litellm_budget_plugin.core.csv_cells import guarded
from litellm_budget_plugin.server.bodies import streamed
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.pages import HEADERS
from litellm_budget_plugin.server.dashboard.people import counting
from litellm_budget_plugin.server.dashboard.session import Visitor, visitor
from litellm_budget_plugin.server.dashboard.subject import scope_in, subject_in
from litellm_budget_plugin.stores.protocol import ask

_PAGE = 1000

BUDGETS = (
    "model", "window", "unit", "limit", "own_limit", "spent", "held", "blocked", "raised_by", "raised_until",
    "window_start", "window_end",
)  # fmt: skip
DAYS = ("day", "model", "spent", "calls", "input_tokens", "output_tokens", "refusals", "unsettled")

Pages = Iterator[list[Sequence[object]]]
Reader = Callable[[Visitor, Request], Pages]

router = APIRouter(include_in_schema=False)


@router.get("/export.csv")
async def budgets_csv(request: Request) -> Response:
    """Export every account of every subject of a scope, one row each."""
    scope = scope_in(request)
    return await _csv(f"{scope}s.csv", (scope, *BUDGETS), request, _accounts)


@router.get("/export.json")
async def budgets_json(request: Request) -> Response:
    """Export every account of every subject of a scope, one object each."""
    scope = scope_in(request)
    return await _json(f"{scope}s.json", (scope, *BUDGETS), request, _accounts)


@router.get("/subject/export.csv")
async def days_csv(request: Request) -> Response:
    """Export a subject's totals by day and model, one row each."""
    return await _csv("days.csv", DAYS, request, _days)


@router.get("/subject/export.json")
async def days_json(request: Request) -> Response:
    """Export a subject's totals by day and model, one object each."""
    return await _json("days.json", DAYS, request, _days)


def _accounts(who: Visitor, request: Request) -> Pages:
    store, ledger, scope = who.site.rosters.store(), who.site.ledger, scope_in(request)
    after: str | None = ""
    while after is not None:
        defaults = ledger.defaults(who.project)
        reply = ask(store, Read(who.project, scope, after=after, page=_PAGE, defaults=defaults))
        rows: list[Sequence[object]] = []
        for name, theirs in groupby(reply.accounts, key=lambda state: state.ref.subject):
            subject = Subject(scope, name)
            counted = counting(subject, theirs, ledger.defaults(who.project, subject), reply.now)
            rows += [_account(state, reply.now) for state in counted]
        yield rows
        after = reply.after


def _account(state: AccountState, now: int) -> Sequence[object]:
    ref, raised = state.ref, state.raised_until > now
    return (
        ref.subject,
        ref.model,
        ref.window,
        ref.unit,
        wording.exact(state.limit, ref.unit),
        state.pinned,
        wording.exact(state.spent, ref.unit),
        wording.exact(state.held, ref.unit),
        state.blocked,
        wording.exact(state.raised_by if raised else 0, ref.unit),
        wording.iso(state.raised_until) if raised else "",
        wording.iso(state.start),
        wording.iso(state.end) if state.end is not None else "",
    )


def _days(who: Visitor, request: Request) -> Pages:
    subject = subject_in(who, scope_in(request), request.query_params.get("id", ""))
    reply = ask(who.site.rosters.store(), ReadUsage(who.project, *subject))
    yield [_day(key, usage) for key, usage in reply.rows]


def _day(key: UsageKey, usage: Usage) -> Sequence[object]:
    return (wording.date_of(key.day), key.model, wording.exact(usage.spent), *usage[1:])


async def _csv(name: str, columns: Sequence[str], request: Request, read: Reader) -> Response:
    def text(who: Visitor) -> Iterator[str]:
        header = [columns]
        for rows in read(who, request):
            yield _lines([*header, *([guarded(value) for value in row] for row in rows)])
            header = []

    return await _file(name, "text/csv; charset=utf-8", request, text)


def _lines(rows: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


async def _json(name: str, columns: Sequence[str], request: Request, read: Reader) -> Response:
    def text(who: Visitor) -> Iterator[str]:
        separator = "[\n"
        for rows in read(who, request):
            found = [
                {column: None if value == "" and column != "model" else value for column, value in zip(columns, row)}
                for row in rows
            ]
            if found:
                yield separator + ",\n".join(map(json.dumps, found))
                separator = ",\n"
        yield "[]\n" if separator == "[\n" else "\n]\n"

    return await _file(name, "application/json", request, text)


async def _file(name: str, kind: str, request: Request, text: Callable[[Visitor], Iterator[str]]) -> Response:
    who = await visitor(request)
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return await streamed(who.site.ledger, text(who), kind, headers)
