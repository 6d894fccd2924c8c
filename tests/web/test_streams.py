"""Streams under real servers: many at once at a limit, clients that disconnect, and no chunk kept back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from litellm_budget_plugin import asgi, wsgi
from tests.hooks.desk import WORTH, Desk
from tests.upstream import Upstream
from tests.web import apps

ROOT = Path(__file__).parents[2]
UrlOf = Callable[[str], str]


def _forty(url: str, user: str) -> list[httpx.Response]:
    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(timeout=60, limits=limits, headers={"X-User": user}) as client:
            return await asyncio.gather(*(client.get(url) for _ in range(40)))

    return asyncio.run(all_of_them())


@pytest.fixture
def eight_at_once(provider: Upstream) -> Iterator[Upstream]:
    """The provider answers when eight calls are open."""
    gate = threading.Barrier(8)
    before, provider.watch = provider.watch, lambda body: gate.wait(30)
    provider.requests = 0
    yield provider
    provider.watch = before


def _check(answers: list[httpx.Response], provider: Upstream) -> None:
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 402]
    assert (len(served), len(refused)) == (8, 32)
    assert {answer.text for answer in served} == {"word0 word1 word2 word3 word4 "}
    for answer in refused:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], problem["limit"], problem["remaining"]) == (402, 0.1, 0)
        assert (answer.headers["budget-limit"], answer.headers["budget-remaining"]) == ("0.1", "0")
        assert int(answer.headers["retry-after"]) >= 1
    assert provider.requests == 8


@pytest.mark.parametrize(
    ("framework", "route"),
    [(name, route) for name in ("fastapi", "starlette") for route in ("/stream", "/sync-stream")]
    + [("flask", "/stream"), ("flask", "/sync-stream")],
)
def test_forty_streams_at_a_limit_for_eight(
    desk: Desk, url_of: UrlOf, eight_at_once: Upstream, framework: str, route: str
) -> None:
    user = f"forty of {framework}{route}"
    _check(_forty(url_of(framework) + route, user), eight_at_once)
    assert desk.calm(user) == 8 * WORTH


def test_forty_streams_under_gunicorn(desk: Desk, eight_at_once: Upstream, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        listening.set_inheritable(True)
        options = ["-k", "gthread", "--threads", "40", "-b", f"fd://{listening.fileno()}", "--log-level", "warning"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "tests.web.gunicorn_app:app"],
            cwd=ROOT,
            pass_fds=[listening.fileno()],
            env={
                **os.environ,
                "PROVIDER": eight_at_once.url,
                "LITELLM_BUDGET_STORE_URL": f"sqlite:///{tmp_path}/ledger.db",
                "LITELLM_BUDGET_DEFAULT_LIMIT": "0.1",
            },
        )
        try:
            # The connections wait until it listens.
            port = listening.getsockname()[1]
            _check(_forty(f"http://127.0.0.1:{port}/stream", "gunicorn"), eight_at_once)
        finally:
            server.terminate()
            server.wait(30)
    assert desk.calm("gunicorn") == 8 * WORTH


@pytest.mark.parametrize(
    ("framework", "route"),
    [("starlette", "/endless"), ("starlette", "/sync-endless"), ("litestar", "/endless")]
    + [("litestar", "/sync-endless"), ("quart", "/endless"), ("flask", "/endless"), ("django", "/endless")]
    + [("django-asgi", "/aendless"), ("layered", "/endless")],
)
def test_a_client_goes_away(desk: Desk, url_of: UrlOf, framework: str, route: str) -> None:
    """The generator is closed, and the call is charged for what it received."""
    user = f"{framework} gone {route}"
    apps.DONE.clear()
    with httpx.stream("GET", url_of(framework) + route, headers={"X-User": user}, timeout=60) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_text()).startswith("word0")
    spent = desk.calm(user)
    assert 0 < spent < WORTH
    assert apps.DONE.wait(20)


class _Steps:
    """Chunks that the test releases one by one."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)

    def wsgi(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for number in range(3):
            assert self.allowed.acquire(timeout=20)
            yield f"{number}".encode()

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        for number in range(3):
            assert await asyncio.to_thread(self.allowed.acquire, timeout=20)
            yield f"{number}".encode()


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_each_chunk_arrives_before_the_next_is_made(kind: str) -> None:
    steps = _Steps()
    app: Any = asgi.BudgetMiddleware(steps.asgi) if kind == "asgi" else wsgi.BudgetMiddleware(steps.wsgi)
    server = apps.Served(app, is_asgi=kind == "asgi")
    try:
        steps.allowed.release()
        with httpx.stream("GET", server.url, timeout=20) as answer:
            received = []
            for chunk in answer.iter_text():
                received.append(chunk)
                steps.allowed.release()
        assert received == ["0", "1", "2"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("framework", "request_line"),
    [(name, "GET /stream HTTP/1.0") for name in (*apps.ASGI, *apps.WSGI)]
    # FastAPI and Litestar have no HEAD unless a route defines it.
    + [(name, "HEAD /sync HTTP/1.1") for name in ("starlette", "quart", "flask", "django")],
)
def test_old_clients_and_heads(desk: Desk, url_of: UrlOf, framework: str, request_line: str) -> None:
    user = f"{framework} old"
    desk.callback.manager.set_limits(user, "$0.001 per month")
    address = httpx.URL(url_of(framework))
    head = f"{request_line}\r\nHost: test\r\nX-User: {user}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((address.host, address.port or 0), 20) as client:
        client.sendall(head.encode())
        received = b""
        while data := client.recv(65536):
            received += data
    status, _, body = received.partition(b"\r\n\r\n")
    assert b" 402 " in status.splitlines()[0]
    assert b"budget-remaining" in status.lower()
    if request_line.startswith("HEAD"):
        assert body == b""
        assert b"content-length: 0" not in status.lower()
    else:
        assert b'"reason"' in body
