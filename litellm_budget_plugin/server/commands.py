"""/v1: the ledger's own commands, one HTTP request each, and the ledger's rows for copying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.commands import Command, Read
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.server import schemas, vetting
from litellm_budget_plugin.server.access import Caller
from litellm_budget_plugin.server.asking import is_light, is_short
from litellm_budget_plugin.server.bodies import as_json, understood
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.stores.http.rows import rows_from, rows_to
from litellm_budget_plugin.stores.http.store import PROTOCOL
from litellm_budget_plugin.stores.protocol import Outcome, Store
from litellm_budget_plugin.stores.rows import Rows

_MOST_COMMANDS, _MOST_LONG = 1000, 10
_MOST_ROWS = 5000

router = APIRouter(prefix="/v1", tags=["ledger"])


@router.get("", summary="The server, and what the key opens", responses=schemas.HELLO)
async def hello(request: Request) -> Response:
    """Return the protocol's version, and the project and access of the key. A client asks this first."""
    site = Site.of(request)
    caller = await site.door.caller(request)
    access = "read-write" if caller.writes else "read-only"
    said = {"service": "litellm-budget", "protocol": PROTOCOL, "project": caller.project, "access": access}
    return as_json(said | ({"test_clock": True} if site.ledger.options.test_clock else {}))


@router.post(
    "/command", summary="Execute one command", openapi_extra=schemas.body(schemas.COMMAND), responses=schemas.REPLY
)
async def command(request: Request) -> Response:
    """Apply a command in one atomic step and return its reply. A command that changes something has an id, so that sending the
    same request again changes nothing more. `now` and `rolls` are ignored: the server's clock counts.
    """
    site = Site.of(request)
    caller = await site.door.caller(request)

    def understand(raw: bytes, body: dict[str, Any]) -> Command:
        vetting.vet_command(raw, body)
        return _command(body, caller, site.ledger.options.test_clock)

    asked = await understood(request, understand)
    reply = await site.ledger.execute(asked)
    text = wire.dumps(reply) if is_light(asked) else await run_in_threadpool(wire.dumps, reply)
    return Response(text, media_type="application/json")


@router.post(
    "/commands",
    summary="Execute many commands",
    openapi_extra=schemas.body(schemas.COMMANDS),
    responses=schemas.OUTCOMES,
)
async def commands(request: Request) -> Response:
    """Apply commands one after the other, each in its own atomic step. The answer to each is its reply, or the reason why it
    can never be applied. A refused command does not stop the others.
    """
    site = Site.of(request)
    caller = await site.door.caller(request)

    def understand(_: bytes, body: dict[str, Any]) -> tuple[list[dict[str, Any] | None], list[Command]]:
        listed = body.get("commands")
        if body.keys() != {"commands"} or not isinstance(listed, list) or len(listed) > _MOST_COMMANDS:
            raise BudgetInputError(f'the body must be {{"commands": [...]}} with at most {_MOST_COMMANDS} of them')
        outcomes: list[dict[str, Any] | None] = [None] * len(listed)
        good: list[Command] = []
        for place, data in enumerate(listed):
            try:
                vetting.COMMANDS.check(data)
                good.append(_command(data, caller, site.ledger.options.test_clock))
            except BudgetInputError as error:
                outcomes[place] = _refused(error)
        long = sum(not is_short(command) for command in good)
        if long > _MOST_LONG:
            raise BudgetInputError(
                f"at most {_MOST_LONG} of the commands may be about all subjects of a scope, or sweep; got {long}"
            )
        return outcomes, good

    outcomes, good = await understood(request, understand)
    return await run_in_threadpool(_told, outcomes, await site.ledger.execute_all(good))


@router.post("/sync", summary="Make acknowledged changes survive a power cut", status_code=204, responses=schemas.DONE)
async def sync(request: Request) -> Response:
    """Return once every charge acknowledged before is on the disk of the store."""
    site = Site.of(request)
    (await site.door.caller(request)).check_writes()
    await site.ledger.sync()
    return Response(status_code=204)


@router.get("/projects", summary="The projects that the key opens", responses=schemas.PROJECTS)
async def projects(request: Request) -> Response:
    """Return the projects that have a row."""
    site = Site.of(request)
    caller = await site.door.caller(request)
    return as_json(
        {"projects": await site.ledger.run(lambda: list(filter(caller.opens, site.ledger.store.projects())))}
    )


@router.post(
    "/rows/read",
    summary="Rows of a project as they are stored",
    openapi_extra=schemas.body(schemas.EXPORT),
    responses=schemas.PAGE,
)
async def read_rows(request: Request) -> Response:
    """Return some rows, and the place where the next page starts, for copying a ledger. `after` is "" or the place that the
    page before gave.
    """
    site = Site.of(request)
    caller = await site.door.caller(request)
    project, after, most = await understood(request, lambda _, body: schemas.export_request(body))
    caller.check_project(project)
    try:
        return await site.ledger.run(_rows, site.ledger.store, project, after, min(most, _MOST_ROWS))
    except (ValueError, TypeError, LookupError) as error:
        if isinstance(error, BudgetInputError) or not after:
            raise
        # Each engine has its own form of places, and assumes that it gets one of its own.
        raise BudgetInputError(f"after must come from an earlier page, got {after!r:.80}") from error


@router.post(
    "/rows/write",
    summary="Write rows, replacing those with the same keys",
    status_code=204,
    openapi_extra=schemas.body(schemas.LOAD),
    responses=schemas.DONE,
)
async def write_rows(request: Request) -> Response:
    """Write rows. Sending them again changes nothing more; rows with other keys stay."""
    site = Site.of(request)
    caller = await site.door.caller(request)

    def understand(_: bytes, body: dict[str, Any]) -> tuple[str, Rows]:
        if body.keys() != {"project", "rows"} or not isinstance(body["project"], str):
            raise BudgetInputError('the body must be {"project": "...", "rows": {...}}')
        vetting.ROWS.check(body)
        caller.check_project(body["project"])
        caller.check_writes()
        rows = rows_from(body["rows"])
        vetting.check_rows(rows)
        return body["project"], rows

    await site.ledger.run(site.ledger.store.load, *await understood(request, understand))
    return Response(status_code=204)


def _rows(store: Store, project: str, after: str, most: int) -> Response:
    page = store.export(project, after, most)
    return as_json({"rows": rows_to(page.rows), "after": page.after})


def _command(data: Any, caller: Caller, test_clock: bool) -> Command:
    decoded = wire.decode(data)
    if not vetting.is_command(decoded):
        raise BudgetInputError(f"{type(decoded).__name__} is a reply, not a command")
    caller.check(decoded)
    vetting.check_lengths(decoded)
    vetting.check_scopes(decoded)
    if isinstance(decoded, Read) and decoded.page > _MOST_ROWS:
        raise BudgetInputError(f"Read.page must be at most {_MOST_ROWS}, got {decoded.page}")
    if test_clock or not getattr(decoded, "rolls", ()):
        return decoded
    # A client may not decide when windows begin and end. The store already ignores the client's time.
    return replace(decoded, rolls=())  # type: ignore[arg-type]  # those that have rolls


def _told(outcomes: list[dict[str, Any] | None], replies: Sequence[Outcome]) -> Response:
    """Return the answer to many commands: `replies` fill the empty places in `outcomes`."""
    rest = iter(replies)
    for place, outcome in enumerate(outcomes):
        if outcome is None:
            reply = next(rest)
            outcomes[place] = _refused(reply) if isinstance(reply, BudgetInputError) else wire.encode(reply)
    return as_json({"outcomes": outcomes})


def _refused(error: BudgetInputError) -> dict[str, Any]:
    return {"type": "BudgetInputError", "message": str(error)}
