"""Logging in and out, and the files of the pages."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.server.dashboard.pages import asset, page
from litellm_budget_plugin.server.dashboard.session import (
    begin_session,
    check_token,
    end_session,
    form_of,
    guest,
    visitor,
)
from litellm_budget_plugin.server.failures import Problem, headers_of

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login(request: Request) -> Response:
    """Asks for a key."""
    who = await guest(request)
    if await who.site.door.stands_open():
        return RedirectResponse(f"{who.root}/", 303)
    return page(who, "login.html", problem="")


@router.post("/login")
async def logged_in(request: Request) -> Response:
    """Begins a session with a key that is good."""
    form = await form_of(request)
    who = await guest(request)
    check_token(who, form)
    key = form.get("key", "").strip()
    try:
        await who.site.door.admit(request, key)
    except Problem as problem:
        if problem.status not in (401, 429):
            raise
        said = "This key opens nothing. Is it complete, and not revoked?"
        if problem.status == 429:
            said = "Too many attempts. Wait a little, then try again."
        response = page(who, "login.html", problem.status, problem=said)
        response.headers.update(headers_of(problem))
        return response
    response = RedirectResponse(f"{who.root}/", 303)
    begin_session(response, who, key)
    return response


@router.post("/logout")
async def logged_out(request: Request) -> Response:
    """Ends the session, whether the key is still good or not."""
    form = await form_of(request)
    try:
        check_token(who := await visitor(request), form)
    except Problem as problem:
        if problem.status != 401:
            raise
        who = await guest(request)
    response = RedirectResponse(f"{who.root}/login", 303)
    end_session(response, who)
    return response


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A file of the pages."""
    found = asset(name)
    if found is None:
        raise Problem(404, "there is no such file")
    return found
