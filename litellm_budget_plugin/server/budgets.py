"""/get_budget and /set_budget: LiteLLM's own protocol, as `litellm.BudgetManager(client_type="hosted")` speaks it.

It carries the whole dictionary of a project's users in both directions: what a client writes replaces what was there, also what
others have charged since that client has read. docs/guarantees.md says what follows from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, AccountState, Command, DropBudget, PutBudget, Read
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.shape import (
    FOLLOWS,
    LEDGER,
    UNLIMITED,
    changes,
    exchanged_record,
    record_of,
    whole_record,
)
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.ledger import new_id
from litellm_budget_plugin.server import schemas
from litellm_budget_plugin.server.bodies import as_json, json_body
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.site import Site

router = APIRouter(tags=["LiteLLM's BudgetManager"])

_AT_ONCE = 500


class _User(NamedTuple):
    state: AccountState
    default: Default
    now: int

    def record(self) -> dict[str, Any]:
        return exchanged_record(record_of(self.state, self.default), follows=not self.state.pinned)


@router.post(
    "/get_budget",
    summary="The budgets of a project's users",
    openapi_extra=schemas.body(schemas.GET_BUDGET),
    responses=schemas.BUDGETS,
)
async def get_budget(request: Request) -> Response:
    """`{"status": "success", "data": {user: record}}`, or status "error" while nothing is stored for the project."""
    site = Site.of(request)
    caller = await site.door.caller(request)
    project = _project(await json_body(request), {"project_name"})
    caller.check_project(project)
    users = await _users(site.ledger, project)
    if not users:
        return as_json({"status": "error", "message": f"nothing is stored for project {project!r}"})
    return as_json({"status": "success", "data": {name: user.record() for name, user in users.items()}})


@router.post(
    "/set_budget",
    summary="Replace the budgets of a project's users",
    openapi_extra=schemas.body(schemas.SET_BUDGET),
    responses=schemas.BUDGETS,
)
async def set_budget(request: Request) -> Response:
    """Make these records the budgets of the project. Users who have a budget and are not among them lose it; those who follow
    a default stay. Nothing is changed if one of the records cannot be accepted.
    """
    site = Site.of(request)
    caller = await site.door.caller(request)
    body = await json_body(request)
    project = _project(body, {"project_name", "user_dict"})
    caller.check_project(project)
    caller.check_writes()
    records = body["user_dict"]
    if not isinstance(records, dict):
        raise BudgetInputError("user_dict must be an object with a record for each user")
    users, now = await _users(site.ledger, project), await _now(site.ledger, project)
    commands: list[Command] = [
        command
        for name, record in records.items()
        if (command := _put(project, name, record, users.get(name), now, site.ledger.defaults(project)))
    ]
    commands += [
        DropBudget(new_id(), project, Subject("user", name), model="")
        for name, user in users.items()
        if name not in records and user.state.pinned
    ]
    for first in range(0, len(commands), _AT_ONCE):
        for outcome in await site.ledger.execute_all(commands[first : first + _AT_ONCE]):
            if isinstance(outcome, BudgetInputError):
                raise outcome
    return as_json({"status": "success"})


def _project(body: Mapping[str, Any], fields: set[str]) -> str:
    if body.keys() != fields or not isinstance(body["project_name"], str):
        raise BudgetInputError(f"the body must be an object with {' and '.join(sorted(fields))}")
    return checked_id(body["project_name"], "project_name")


async def _users(ledger: ServedLedger, project: str) -> dict[str, _User]:
    """Everybody who has a budget, or has spent something."""
    found: dict[str, _User] = {}
    defaults = ledger.defaults(project)
    default = _default(defaults)
    after: str | None = ""
    while after is not None:
        reply = await ledger.execute(Read(project, "user", after=after, defaults=defaults))
        assert isinstance(reply, Accounts)
        for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
            ours = [state for state in states if (state.ref.model, state.ref.unit) == ("", "usd")]
            if ours:
                # The order in which PutBudget chooses the budget that it changes.
                state = min(ours, key=lambda one: (not one.pinned, one.ref.window != default.window, one.ref))
                if state.pinned or state.spent or state.epoch:
                    found[name] = _User(state, default, reply.now)
        after = reply.after
    return found


async def _now(ledger: ServedLedger, project: str) -> int:
    reply = await ledger.execute(Read(project, "user", ""))
    assert isinstance(reply, Accounts)
    return reply.now


def _default(defaults: tuple[Default, ...]) -> Default:
    return next((each for each in defaults if (each.scope, each.model) == ("user", "")), Default("user"))


def _put(
    project: str, name: str, record: Any, user: _User | None, now: int, defaults: tuple[Default, ...]
) -> PutBudget | None:
    """What makes `record` the user's, None if it is already."""
    try:
        subject = Subject("user", checked_id(name, "a user"))
        given = whole_record(record)
        given.pop(LEDGER, None)
        follows = given.pop(FOLLOWS, False)
        window = user.state.ref.window if user else _default(defaults).window
        fields = changes(given, user.state if user else None, window, now, "UTC")
        if follows is True:
            del fields["limit"]
        elif (fields["limit"] or 0) >= UNLIMITED:
            fields["limit"] = None
    except BudgetInputError as error:
        raise BudgetInputError(f"user {name!r:.80}: {error}") from None
    if user is not None and _same(user, record):
        return None
    return PutBudget(new_id(), project, subject, only=True, defaults=defaults, **fields)


def _same(user: _User, record: Any) -> bool:
    return bool(user.record() == record)
