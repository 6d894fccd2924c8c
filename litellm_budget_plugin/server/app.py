"""The ASGI application of one worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import litellm_budget_plugin
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.server import budgets, commands, failures, health, schemas, subjects
from litellm_budget_plugin.server.access import Door
from litellm_budget_plugin.server.dashboard import entry, exports, overview, problems, subject
from litellm_budget_plugin.server.dashboard.scanning import Rosters
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.limits import BodyLimits, BodyRefused
from litellm_budget_plugin.server.logs import AccessLog
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.server.site import Site
from litellm_budget_plugin.stores.http.store import PROTOCOL

_WORK_THREADS = 2
_HEADERS = (
    (b"litellm-budget-protocol", str(PROTOCOL).encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def create_app(options: ServerOptions) -> FastAPI:
    """Return an application that serves the ledger of `options` while it runs. Its start raises what opening the store raises."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The threads for large bodies and pages compete with the event loop, so there are few of them.
        anyio.to_thread.current_default_thread_limiter().total_tokens = _WORK_THREADS
        ledger = ServedLedger(options)
        rosters = Rosters(ledger)
        app.state.site = Site(ledger, Door(ledger), rosters, {}, asyncio.Lock(), {})
        await ledger.begin()
        try:
            yield
        finally:
            await ledger.run(rosters.close)
            await ledger.end()

    app = FastAPI(
        title="litellm-budget",
        version=litellm_budget_plugin.__version__,
        description="Per-user budgets for people who call LLMs through LiteLLM. Commands give money in nano-dollars and time in microseconds.",
        lifespan=lifespan,
        root_path=options.root_path,
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = lambda: schemas.document(app)  # type: ignore[method-assign]
    pages = (overview.router, exports.router, subject.router, entry.router)
    for router in (commands.router, subjects.router, budgets.router, health.router, *pages):
        app.include_router(router)
    # This route comes before FastAPI's own, which documents it. FastAPI's work on a request, which this route does not need,
    # takes as long as a command itself.
    app.router.routes.insert(0, Route("/v1/command", commands.command, methods=["POST"]))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, problems.answer)
    for kind in (failures.Problem, BodyRefused, BudgetError):
        app.add_exception_handler(kind, problems.answer)
    app.add_middleware(BodyLimits, most=options.max_body, seconds=options.body_seconds)
    app.add_middleware(Outside)
    app.add_middleware(AccessLog)
    return app


class Outside:
    """ASGI middleware: limits the rate of clients without a key, serves HEAD as a GET whose body is not sent, and adds the
    common headers to every response that does not set them itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _HEADERS if each[0] not in there)]
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            Site.of(request).door.check_rate(request)
        except failures.Problem as problem:
            await problems.answer(request, problem)(scope, receive, with_headers)
            return
        # uvicorn keeps its own scope, where the method is still HEAD, and so sends no body.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await self._app(inner, receive, with_headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allow = _allowed(request) if error.status_code == 405 else None
    return problems.answer(request, failures.Problem(error.status_code, str(error.detail), allow=allow))


def _allowed(request: Request) -> str:
    """Return the methods of an address. Each method may have its own route."""
    found = [
        method
        for method in ("GET", "POST", "PUT", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ", ".join([*found, "HEAD"] if "GET" in found else found)
