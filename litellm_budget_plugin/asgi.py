"""BudgetMiddleware for ASGI. In FastAPI or Starlette:

    app.add_middleware(BudgetMiddleware, user=lambda scope: scope["session"].get("user"))

It also works with Litestar, Quart, Django and every other ASGI framework. This module imports none of them at import time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.web.problems import Problem, bad_id, error_handler, problem_of
from litellm_budget_plugin.web.remaining import remaining as caller_budgets
from litellm_budget_plugin.web.remaining import remaining_answer
from litellm_budget_plugin.web.requests import Middleware, Request

__all__ = ["BudgetMiddleware", "error_handler", "exception_handler", "remaining"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


class BudgetMiddleware(Middleware):
    """ASGI middleware that names the user who pays for a request's LLM calls, and answers refusals with problem documents (RFC 9457).

    `user`, `team`, `tags` and `run` are each a header's name, "cookie:NAME", or a function of the scope, sync or async. A header of tags
    separates them with commas. A client can forge headers and cookies: name one only if a proxy sets it and removes the client's own.
    The user pays, as in `budget_context`, until the response has ended.

    A refusal that the application does not handle is answered with `status` if no byte of the body was sent. After the first byte the
    error is passed on to the server, which ends the connection. `expose` lists the scopes whose budget figures a client may see.
    A GET of `remaining_path` is answered with the budgets of the caller. Raises BudgetInputError for invalid options.
    """

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket; pass anything else to the application unchanged."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        response = _Response(scope, send)
        try:
            request = Request(self, await self._found(scope))
        except BudgetInputError as error:
            await response.replace(bad_id(error))
            return
        with request.entered():
            try:
                if self._asks_for_remaining(scope):
                    await response.replace(await asyncio.to_thread(remaining_answer))
                else:
                    await self.app(scope, receive, response.send)
                    await response.finish()
            except Exception as error:
                problem = None if response.sent else problem_of(error)
                if problem is None:
                    await response.finish(failed=True)
                    raise
                await response.replace(problem)

    async def _found(self, scope: Scope) -> dict[str, Any]:
        def headers(name: str) -> list[bytes]:
            return [value for key, value in scope["headers"] if key.lower() == name.encode()]

        found = {}
        for name, read in self.sources.items():
            value = read(scope, headers)
            found[name] = await value if inspect.isawaitable(value) else value
        return found

    def _asks_for_remaining(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or self.remaining_path is None:
            return False
        path, root = scope["path"], scope.get("root_path") or ""
        # Some servers include the application's mount path in `path`, others do not.
        return self.remaining_path in (path, path[len(root) :] if path.startswith(root + "/") else path)


class _Response:
    """The application's response. It is held back until the first byte of the body, so that a problem document can replace it.

    Frameworks answer an error with a small complete response, and then raise the error again. A response that may be such an answer is
    held back until the application returns: a complete response with a status of 500 or above, and an empty body of unknown length.
    Starlette's BaseHTTPMiddleware sends the latter for a stream that fails before its first byte.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.sent = False
        self._scope, self._send = scope, send
        self._held: list[Message] = []

    async def send(self, message: Message) -> None:
        """Send a message from the application, or hold it back."""
        kind = message["type"]
        if not self.sent:
            if kind == "http.response.start":
                self._held = [message]
                return
            if kind == "http.response.body" and self._held:
                more = message.get("more_body", False)
                if more and not message.get("body"):
                    return
                if not more and len(self._held) == 1 and self._may_be_an_error(message):
                    self._held.append(message)
                    return
            if self._held or kind in ("websocket.accept", "websocket.close", "websocket.http.response.start"):
                await self.finish()
                self.sent = True
        await self._send(message)

    def _may_be_an_error(self, body: Message) -> bool:
        status = self._held[0]["status"]
        sized = any(name.lower() == b"content-length" for name, _ in self._held[0].get("headers", ()))
        return status >= 500 or not (body.get("body") or sized or status in (204, 304))

    async def finish(self, *, failed: bool = False) -> None:
        """Send the messages that are held back. If the application `failed`, send only a complete response; else the server answers."""
        held, self._held = self._held, []
        if held and (not failed or len(held) > 1):
            self.sent = True
            for message in held:
                await self._send(message)

    async def replace(self, problem: Problem) -> None:
        """Send the problem document instead of the messages that are held back."""
        self._held, self.sent = [], True
        if self._scope["type"] == "websocket":
            code = _TRY_AGAIN_LATER if problem.status == 503 else _POLICY_VIOLATION
            await self._send({"type": "websocket.close", "code": code, "reason": problem.reason})
            return
        await _answer(problem, self._scope, self._send)


async def _answer(problem: Problem, scope: Scope, send: Send) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else problem.body
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def remaining() -> dict[str, Any]:
    """Return the budgets of the caller, for a route of the application. Does not block the event loop.

    Call it within a `BudgetMiddleware` or a `budget_context`. Raises BudgetUserMissing if no user is named, BudgetStoreError if the
    ledger does not answer, and BudgetError without an open callback.
    """
    return await asyncio.to_thread(caller_budgets)


class _ProblemResponse:
    """A response that exception handlers of Starlette and Litestar can return."""

    def __init__(self, problem: Problem) -> None:
        self.status_code = problem.status
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's form
        await _Response(scope, send).replace(self._problem)

    def to_asgi_response(self, *_: Any, **__: Any) -> _ProblemResponse:
        """Return this response: Litestar calls this method to get the ASGI application."""
        return self


def exception_handler(request: Any, error: Exception) -> Any:
    """Answer a refusal or an unreachable ledger with its problem document, also if another error was raised from it.

    An exception handler for Litestar, `Litestar(exception_handlers={500: exception_handler})`, and for Starlette and FastAPI if
    something inside the middleware answers errors. Other errors get Litestar's own response, and are raised again in other frameworks.
    """
    problem = problem_of(error)
    if problem is not None:
        return _ProblemResponse(problem)
    if "litestar_app" in request.scope:
        from litestar.exceptions.responses import create_exception_response

        return create_exception_response(request, error)
    raise error
