"""The numbers as files: everybody's budgets, and one user's days, as CSV and JSON. Amounts are exact."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from litellm_budget_plugin.core.accounts import Usage, UsageKey
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.pages import HEADERS
from litellm_budget_plugin.server.dashboard.person import subject_in
from litellm_budget_plugin.server.dashboard.reading import usage_of
from litellm_budget_plugin.server.dashboard.session import Visitor, visitor
from litellm_budget_plugin.stores.protocol import ask

Form = Literal["csv", "json"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - a spreadsheet reads these like the others
_PAGE = 1000

USERS = (
    "user", "model", "window", "unit", "limit", "own_limit", "spent", "held", "blocked", "raised_by", "raised_until",
    "window_start", "window_end",
)  # fmt: skip
DAYS = ("day", "model", "spent", "calls", "input_tokens", "output_tokens", "refusals", "unsettled")

router = APIRouter(include_in_schema=False)


@router.get("/export.csv")
async def users_csv(request: Request) -> Response:
    """Every account of every user, a row each."""
    return _csv("users.csv", USERS, _accounts(await visitor(request)))


@router.get("/export.json")
async def users_json(request: Request) -> Response:
    """Every account of every user, an object each."""
    return _json("users.json", USERS, _accounts(await visitor(request)))


@router.get("/user/export.csv")
async def days_csv(request: Request) -> Response:
    """A user's totals by day and model, a row each."""
    return _csv("days.csv", DAYS, await _days(request))


@router.get("/user/export.json")
async def days_json(request: Request) -> Response:
    """A user's totals by day and model, an object each."""
    return _json("days.json", DAYS, await _days(request))


async def _accounts(who: Visitor) -> AsyncIterator[list[Sequence[object]]]:
    ledger, after = who.site.ledger, ""
    store = await ledger.run(who.site.rosters.store)
    defaults = ledger.defaults(who.project)
    while True:
        reply = await ledger.run(ask, store, Read(who.project, "user", after=after, page=_PAGE, defaults=defaults))
        assert isinstance(reply, Accounts)
        yield [_account(state, reply.now) for state in reply.accounts]
        if reply.after is None:
            return
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


async def _days(request: Request) -> AsyncIterator[list[Sequence[object]]]:
    who = await visitor(request)
    rows = await usage_of(who.site.ledger, who.project, subject_in(request.query_params.get("id", "")))

    async def pages() -> AsyncIterator[list[Sequence[object]]]:
        yield [_day(key, usage) for key, usage in rows]

    return pages()


def _day(key: UsageKey, usage: Usage) -> Sequence[object]:
    return (wording.date_of(key.day), key.model, wording.exact(usage.spent), *usage[1:])


def _csv(name: str, columns: Sequence[str], pages: AsyncIterator[list[Sequence[object]]]) -> Response:
    async def text() -> AsyncIterator[str]:
        yield _lines([columns])
        async for rows in pages:
            yield _lines([_defused(value) for value in row] for row in rows)

    return _file(name, "text/csv; charset=utf-8", text())


def _lines(rows: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


def _defused(value: object) -> object:
    """A spreadsheet runs what begins like a formula; with an apostrophe before it, it is text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _json(name: str, columns: Sequence[str], pages: AsyncIterator[list[Sequence[object]]]) -> Response:
    async def text() -> AsyncIterator[str]:
        separator = "[\n"
        async for rows in pages:
            for row in rows:
                found = {
                    column: None if value == "" and column != "model" else value for column, value in zip(columns, row)
                }
                yield separator + json.dumps(found)
                separator = ",\n"
        yield "[]\n" if separator == "[\n" else "\n]\n"

    return _file(name, "application/json", text())


def _file(name: str, kind: str, text: AsyncIterator[str]) -> Response:
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(text, media_type=kind, headers=headers)
