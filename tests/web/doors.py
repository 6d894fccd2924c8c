"""Requests to a middleware in this process, by ASGI and by WSGI: what a server would pass in, and what it would get
back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from litellm_budget_plugin import asgi, wsgi

Headers = list[tuple[bytes, bytes]]
Handler = Callable[[], str]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


def ask_asgi(handler: Handler, headers: Headers = [], path: str = "/", method: str = "GET", **options: Any) -> Answer:  # noqa: B006
    async def app(scope: Any, receive: Any, send: Any) -> None:
        text = handler()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode("utf-8", "surrogateescape")})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": headers, "query_string": b""}
    asyncio.run(asgi.BudgetMiddleware(app, **options)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    said = {name.decode("ascii"): value.decode("ascii") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], said, sent[1].get("body", b""))


def ask_wsgi(handler: Handler, headers: Headers = [], path: str = "/", method: str = "GET", **options: Any) -> Answer:  # noqa: B006
    def app(environ: Any, start_response: Any) -> list[bytes]:
        text = handler()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode("utf-8", "surrogateescape")]

    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    for name, value in headers:
        key = "HTTP_" + name.decode().upper().replace("-", "_")
        text = value.decode("latin-1")
        # As servers do it.
        environ[key] = f"{environ[key]}{';' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    started: list[Any] = []

    def start_response(status: str, said: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert not started or exc_info
        started.append((int(status.split()[0]), {name.lower(): value for name, value in said}))

    middleware = wsgi.BudgetMiddleware(app, **options)
    # WSGI's own checker checks what the middleware gives a server. The middleware passes on the environ unchanged.
    answer = validator(middleware)(environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        answer.close()
    return Answer(*started[-1], body)


DOORS = {"asgi": ask_asgi, "wsgi": ask_wsgi}
