"""Logging in and out, and the files of the pages."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.server.dashboard.pages import asset, page
from litellm_budget_plugin.server.dashboard.session import (
    NotLoggedIn,
    check_origin,
    check_token,
    form_of,
    guest,
    remember_session,
    sender,
)
from litellm_budget_plugin.server.failures import Problem, headers_of
from litellm_budget_plugin.server.keys import begin_session, end_session

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login(request: Request) -> Response:
    """Show the form that asks for a key."""
    who = await guest(request)
    if await who.site.door.stands_open():
        return RedirectResponse(f"{who.root}/", 303)
    return await page(who, "login.html", problem="")


@router.post("/login")
async def logged_in(request: Request) -> Response:
    """Begin a session with a valid key."""
    check_origin(request)
    who = await guest(request)
    form = await form_of(request)
    check_token(who, form)
    try:
        caller = await who.site.door.admit(request, form.get("key", "").strip())
    except Problem as problem:
        if problem.status not in (401, 429):
            raise
        said = "This key is not valid. Is it complete, and not revoked?"
        if problem.status == 429:
            said = "Too many attempts. Wait a little, then try again."
        response = await page(who, "login.html", problem.status, problem=said)
        response.headers.update(headers_of(problem))
        return response
    response = RedirectResponse(f"{who.root}/", 303)
    if caller.project is not None:
        ledger = who.site.ledger
        remember_session(response, who, await ledger.run(begin_session, ledger.store, caller.name))
        await ledger.refresh()
    return response


@router.post("/logout")
async def logged_out(request: Request) -> Response:
    """End the session on every server, and delete the browser's cookie even if the session has already ended."""
    try:
        who, _ = await sender(request)
    except NotLoggedIn:
        who = await guest(request)
    else:
        ledger = who.site.ledger
        await ledger.run(end_session, ledger.store, who.site.door.cookie(request))
        await ledger.refresh()
    response = RedirectResponse(f"{who.root}/login", 303)
    remember_session(response, who, "")
    return response


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Return a file of the pages."""
    found = asset(name)
    if found is None:
        raise Problem(404, "there is no such file")
    return found
