"""The statements of the documentation about sessions, and about frameworks that answer without the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from flask import Flask, session
from litestar import Litestar, get
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request

from litellm_budget_plugin import BudgetUserMissing, asgi, wsgi
from litellm_budget_plugin.hooks.context import payer_here


class Client:
    """A client of an ASGI application in this process, which keeps its cookies."""

    def __init__(self, app: Any) -> None:
        self._app, self._cookies = app, httpx.Cookies()

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test", cookies=self._cookies) as client:
                answer = await client.get(path)
                self._cookies = client.cookies
                return answer

        return asyncio.run(ask())


def test_a_function_over_starlettes_session() -> None:
    app = FastAPI()
    app.add_middleware(asgi.BudgetMiddleware, user=lambda scope: scope["session"].get("user"))
    app.add_middleware(SessionMiddleware, secret_key="tests")

    @app.get("/login/{name}")
    async def login(request: Request, name: str) -> None:
        request.session["user"] = name

    @app.get("/who")
    async def who() -> str | None:
        return payer_here().user

    client = Client(app)
    assert client.get("/who").json() is None
    client.get("/login/alice")
    assert client.get("/who").json() == "alice"


def test_a_function_over_flasks_session() -> None:
    app = Flask(__name__)
    app.secret_key = "tests"

    def signed_in(environ: Any) -> Any:
        return app.session_interface.open_session(app, app.request_class(environ)).get("user")

    app.wsgi_app = wsgi.BudgetMiddleware(app.wsgi_app, user=signed_in)  # type: ignore[method-assign]

    @app.route("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return name

    app.route("/who")(lambda: str(payer_here().user))
    client = app.test_client()
    assert client.get("/who").text == "None"
    client.get("/login/alice")
    assert client.get("/who").text == "alice"


def refused() -> str:
    raise RuntimeError("the agent failed") from BudgetUserMissing("nobody")


def mistaken() -> str:
    raise ValueError("a mistake")


def fastapi_alone() -> Any:
    app = FastAPI()
    app.add_exception_handler(Exception, asgi.exception_handler)
    app.get("/refused")(refused)
    app.get("/mistaken")(mistaken)
    return Client(app)


def litestar_alone() -> Any:
    @get("/refused", sync_to_thread=False)
    def first() -> str:
        return refused()

    @get("/mistaken", sync_to_thread=False)
    def second() -> str:
        return mistaken()

    return Client(Litestar([first, second], exception_handlers={500: asgi.exception_handler}))


def flask_alone() -> Any:
    app = Flask(__name__)
    app.register_error_handler(Exception, wsgi.error_handler)
    app.route("/refused")(refused)
    app.route("/mistaken")(mistaken)
    return app.test_client()


@pytest.mark.parametrize("made", [fastapi_alone, litestar_alone, flask_alone])
def test_handlers_answer_without_the_middleware(made: Callable[[], Any]) -> None:
    client = made()
    answer = client.get("/refused")
    assert (answer.status_code, answer.headers["content-type"]) == (402, "application/problem+json")
    try:
        assert client.get("/mistaken").status_code == 500
    except ValueError as error:
        assert str(error) == "a mistake"
    assert client.get("/nowhere").status_code == 404


def test_a_frameworks_own_handlers_come_first() -> None:
    """The application answers refusals by itself, and its answer stays."""
    from werkzeug.exceptions import NotFound

    app = Flask(__name__)
    app.wsgi_app = wsgi.BudgetMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    app.register_error_handler(Exception, wsgi.error_handler)
    app.register_error_handler(RuntimeError, lambda error: ("mine", 500))
    app.register_error_handler(NotFound, lambda error: ("not here", 404))
    app.route("/refused")(refused)
    assert app.test_client().get("/refused").text == "mine"
    assert app.test_client().get("/nowhere").text == "not here"


def test_a_handlers_answer_to_a_websocket_is_a_close() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = FastAPI()
    app.add_exception_handler(BudgetUserMissing, asgi.exception_handler)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        raise BudgetUserMissing("nobody")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b"", "subprotocols": []}
    asyncio.run(app(scope, receive, send))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
