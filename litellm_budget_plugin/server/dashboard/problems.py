"""Errors as responses: a page for a browser, an object for a program."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from litellm_budget_plugin.server import failures
from litellm_budget_plugin.server.dashboard.pages import render
from litellm_budget_plugin.server.dashboard.session import NoProject, NotLoggedIn, Visitor, root_of
from litellm_budget_plugin.server.site import Site

_TITLES = {
    403: "Not allowed",
    404: "No such page",
    405: "Method not allowed",
    422: "Not accepted",
    429: "Too many requests",
    503: "The ledger does not answer",
}


def answer(request: Request, error: Exception) -> Response:
    """Return the response to an error from any part of the site."""
    # A program that fetches a file must not take the log-in page for it.
    if isinstance(error, NotLoggedIn) and "authorization" not in request.headers:
        return RedirectResponse(f"{root_of(request)}/login", 303)
    if isinstance(error, NoProject):
        return RedirectResponse(f"{root_of(request)}/projects", 303)
    if "text/html" not in request.headers.get("accept", ""):
        return failures.as_json(request, error)
    problem = failures.problem_of(error)
    visitor = Visitor(Site.of(request), root_of(request), None, "", "")
    if problem.status == 404:
        problem.message = "there is nothing at this address"
    title = _TITLES.get(problem.status, "That did not work")
    response = render(visitor, "problem.html", problem.status, title=title, problem=problem)
    response.headers.update(failures.headers_of(problem))
    return response
