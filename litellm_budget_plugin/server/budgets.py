"""/get_budget and /set_budget: LiteLLM's own protocol, as `litellm.BudgetManager(client_type="hosted")` uses it.

Each request transfers the whole dictionary of a project's users. A client's write replaces the stored records, including
charges that others made since that client last read. docs/guarantees.md describes the consequences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import AccountState, Command, DropBudget, PutBudget, Read
from litellm_budget_plugin.core.litellm_record import (
    FOLLOWS,
    LEDGER,
    UNLIMITED,
    changes,
    exchanged_record,
    record_of,
    whole_record,
)
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import CREDIT
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.server import schemas
from litellm_budget_plugin.server.access import Caller
from litellm_budget_plugin.server.bodies import as_json, streamed, understood
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.stores.protocol import Store, ask

router = APIRouter(tags=["LiteLLM's BudgetManager"])

_AT_ONCE = 500


class _User(NamedTuple):
    state: AccountState
    default: Default
    now: int
    several: bool = False
    """Whether the user has several limits. The protocol has room for one."""

    def record(self) -> dict[str, Any]:
        return exchanged_record(record_of(self.state, self.default), follows=not self.state.pinned)


@router.post(
    "/get_budget",
    summary="The budgets of a project's users",
    openapi_extra=schemas.body(schemas.GET_BUDGET),
    responses=schemas.BUDGETS,
)
async def get_budget(request: Request) -> Response:
    """Return `{"status": "success", "data": {user: record}}`, or status "error" while nothing is stored for the project."""
    site = Site.of(request)
    caller = await site.door.caller(request)
    project = await understood(request, lambda _, body: _project(body, {"project_name"}, caller))
    store = await site.ledger.run(site.rosters.store)
    return await streamed(site.ledger, _told(store, project, site.ledger.defaults(project)), "application/json")


@router.post(
    "/set_budget",
    summary="Replace the budgets of a project's users",
    openapi_extra=schemas.body(schemas.SET_BUDGET),
    responses=schemas.BUDGETS,
)
async def set_budget(request: Request) -> Response:
    """Make these records the budgets of the project. A user who has a budget but no record loses the budget; users who follow a
    default stay. Nothing is changed if one of the records cannot be accepted.
    """
    site = Site.of(request)
    caller = await site.door.caller(request)

    def understand(_: bytes, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        project = _project(body, {"project_name", "user_dict"}, caller)
        caller.check_writes()
        if not isinstance(body["user_dict"], dict):
            raise BudgetInputError("user_dict must be an object with a record for each user")
        return project, body["user_dict"]

    project, records = await understood(request, understand)
    ledger = site.ledger
    work = _changes(await ledger.run(site.rosters.store), project, records, ledger.defaults(project))
    while (some := await ledger.run(next, work, None)) is not None:
        for outcome in await ledger.execute_all(some):
            if isinstance(outcome, BudgetInputError):
                raise outcome
    return as_json({"status": "success"})


def _project(body: Mapping[str, Any], fields: set[str], caller: Caller) -> str:
    if body.keys() != fields or not isinstance(body["project_name"], str):
        raise BudgetInputError(f"the body must be an object with {' and '.join(sorted(fields))}")
    project = checked_id(body["project_name"], "project_name")
    caller.check_project(project)
    return project


def _told(store: Store, project: str, defaults: tuple[Default, ...]) -> Iterator[str]:
    """Yield the answer to /get_budget, page by page."""
    separator = '{"status":"success","data":{'
    for users in _pages(store, project, defaults):
        if users:
            yield separator + json.dumps({name: user.record() for name, user in users.items()})[1:-1]
            separator = ","
    failed = {"status": "error", "message": f"nothing is stored for project {project!r}"}
    yield "}}" if separator == "," else json.dumps(failed)


def _changes(
    store: Store, project: str, records: Mapping[str, Any], defaults: tuple[Default, ...]
) -> Iterator[list[Command]]:
    """Yield lists of the commands that make these records the project's budgets. All records are checked before the first list:
    raises BudgetInputError.
    """
    reply = ask(store, Read(project, "user", ""))
    new, puts = dict(records), []
    for users in _pages(store, project, defaults):
        puts += [
            _put(project, name, new.pop(name), user, user.now, defaults) for name, user in users.items() if name in new
        ]
    puts += [_put(project, name, record, None, reply.now, defaults) for name, record in new.items()]
    commands: list[Command] = [put for put in puts if put is not None]
    yield from (commands[first : first + _AT_ONCE] for first in range(0, len(commands), _AT_ONCE))
    for users in _pages(store, project, defaults):
        gone = [name for name, user in users.items() if name not in records and user.state.pinned]
        yield [DropBudget(new_id(), project, Subject("user", name), model="") for name in gone]


def _pages(store: Store, project: str, defaults: tuple[Default, ...]) -> Iterator[dict[str, _User]]:
    """Yield everybody who has a budget or has spent something, page by page, in the order of their ids."""
    default = _default(defaults)
    after: str | None = ""
    while after is not None:
        found: dict[str, _User] = {}
        reply = ask(store, Read(project, "user", after=after, page=_AT_ONCE, defaults=defaults))
        for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
            ours = [
                state
                for state in states
                if (state.ref.model, state.ref.unit) == ("", "usd") and state.ref.window != CREDIT
            ]
            if ours:
                # PutBudget chooses the budget that it changes in this order. Of several limits, the one with the least left
                # comes first.
                several = sum(state.pinned for state in ours) > 1
                left = _left if several else lambda _: 0.0
                state = min(
                    ours, key=lambda one: (not one.pinned, left(one), one.ref.window != default.window, one.ref)
                )
                if state.pinned or state.spent or state.epoch:
                    found[name] = _User(state, default, reply.now, several)
        yield found
        after = reply.after


def _left(state: AccountState) -> float:
    return math.inf if state.limit is None else state.limit - state.spent - state.held


def _default(defaults: tuple[Default, ...]) -> Default:
    return next((each for each in defaults if (each.scope, each.model) == ("user", "")), Default("user"))


def _put(
    project: str, name: str, record: Any, user: _User | None, now: int, defaults: tuple[Default, ...]
) -> PutBudget | None:
    """Return the command that makes `record` the user's budget, or None if it already is. Raises BudgetInputError."""
    try:
        subject = Subject("user", checked_id(name, "a user"))
        given = whole_record(record)
        _check_amounts(given)
        given.pop(LEDGER, None)
        follows = given.pop(FOLLOWS, False)
        window = user.state.ref.window if user else _default(defaults).window
        fields = changes(given, user.state if user else None, window, now, "UTC")
        several = user is not None and user.several
        if several and fields.get("window", window) != window:
            raise BudgetInputError("there are several budgets, so their windows are changed at /v1/subjects alone")
        if follows is True:
            del fields["limit"]
        elif (fields["limit"] or 0) >= UNLIMITED:
            fields["limit"] = None
    except BudgetInputError as error:
        raise BudgetInputError(f"user {name!r:.80}: {error}") from None
    if user is not None and _same(user, record):
        return None
    where = {"window": window, **fields} if several else fields
    return PutBudget(new_id(), project, subject, only=not several, defaults=defaults, **where)


def _check_amounts(record: Mapping[str, Any]) -> None:
    models = record["model_cost"]
    amounts = [
        record["total_budget"],
        record.get("current_cost"),
        *(models.values() if isinstance(models, dict) else ()),
    ]
    if any(isinstance(amount, str) for amount in amounts):
        raise BudgetInputError("amounts must be numbers of US dollars, not text")


def _same(user: _User, record: Any) -> bool:
    return bool(user.record() == record)
