"""One application in each framework, and the server that serves it. All have the same routes, which call LiteLLM:

- `/sync`, `/async`: a handler of that kind; `/thread`: in a thread that the handler starts; `/background`: after the answer
- `/stream`, `/sync-stream`: the call is made when the body is iterated; `/late`: after the first chunk of it
- `/endless`: continues after the call's first chunk until the client has disconnected
- `/wrapped`: a framework's error is made of the refusal
- `/handled`: the refusal is handled, and the application intends to answer with a 500; `/bug`, `/input`: its own mistakes
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from litestar import Litestar, MediaType, Response, get
from litestar.background_tasks import BackgroundTask
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from starlette.concurrency import run_in_threadpool
from werkzeug.serving import make_server

from litellm_budget_plugin import BudgetRefused, asgi, budget_context, wsgi

OPTIONS: dict[str, Any] = {"user": "X-User", "team": "X-Team", "remaining_path": "/budget"}
CALL: dict[str, Any] = {}
"""The arguments of the calls, set by the tests."""
DONE = threading.Event()
"""Set after each call in the background, and when an endless stream is closed."""


class AgentError(Exception):
    """A framework's error."""


def complete() -> str:
    return str(litellm.completion(**CALL).choices[0].message.content)


async def acomplete() -> str:
    return str((await litellm.acompletion(**CALL)).choices[0].message.content)


def chunks() -> Iterator[str]:
    for chunk in litellm.completion(**CALL, stream=True):
        yield chunk.choices[0].delta.content or "" if chunk.choices else ""


async def achunks() -> AsyncIterator[str]:
    async for chunk in await litellm.acompletion(**CALL, stream=True):
        yield chunk.choices[0].delta.content or "" if chunk.choices else ""


def late() -> Iterator[str]:
    yield "first"
    yield complete()


async def alate() -> AsyncIterator[str]:
    yield "first"
    yield await acomplete()


def endless() -> Iterator[str]:
    stream = iter(chunks())
    try:
        yield next(stream)
        while True:
            yield "." * 10_000
    finally:
        DONE.set()


async def aendless() -> AsyncIterator[str]:
    stream = achunks()
    try:
        yield await stream.__anext__()
        while True:
            yield "." * 10_000
            await asyncio.sleep(0)
    finally:
        DONE.set()


def wrapped() -> str:
    try:
        return complete()
    except Exception as error:
        raise AgentError("the agent failed") from error


def in_background() -> None:
    try:
        complete()
    finally:
        DONE.set()


def bug() -> str:
    raise ValueError("a mistake")


def bad_input() -> str:
    with budget_context(user="a mistake of the application's\n"):
        return complete()


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask as Task
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route, WebSocketRoute

    async def aasync(request: Any) -> Any:
        return PlainTextResponse(await acomplete())

    async def thread(request: Any) -> Any:
        return PlainTextResponse(await run_in_threadpool(complete))

    async def handled(request: Any) -> Any:
        try:
            return PlainTextResponse(await acomplete())
        except BudgetRefused:
            return PlainTextResponse("meant", 500)

    async def websocket(socket: Any) -> None:
        if socket.query_params.get("accept"):
            await socket.accept()
        text = await acomplete()
        if not socket.query_params.get("accept"):
            await socket.accept()
        await socket.send_text(text)
        await socket.close()

    def plain(function: Callable[[], str]) -> Any:
        return lambda request: PlainTextResponse(function())

    def streamed(function: Callable[[], Any]) -> Any:
        return lambda request: StreamingResponse(function(), media_type="text/plain")

    routes = [
        Route("/sync", plain(complete)),
        Route("/async", aasync),
        Route("/thread", thread),
        Route("/stream", streamed(achunks)),
        Route("/sync-stream", streamed(chunks)),
        Route("/late", streamed(alate)),
        Route("/endless", streamed(aendless)),
        Route("/sync-endless", streamed(endless)),
        Route("/wrapped", plain(wrapped)),
        Route("/background", lambda request: PlainTextResponse("begun", background=Task(in_background))),
        Route("/handled", handled),
        Route("/bug", plain(bug)),
        Route("/input", plain(bad_input)),
        WebSocketRoute("/socket", websocket),
    ]
    inner = Starlette(routes=routes)
    return Starlette(
        routes=[Mount("/mounted", inner), *routes], middleware=[Middleware(asgi.BudgetMiddleware, **OPTIONS)]
    )


def fastapi() -> Any:
    def session() -> Iterator[None]:
        yield

    app = FastAPI(dependencies=[Depends(session)], default_response_class=PlainTextResponse)
    app.add_middleware(asgi.BudgetMiddleware, **OPTIONS)
    app.get("/sync")(complete)
    app.get("/async")(acomplete)
    app.get("/wrapped")(wrapped)
    app.get("/bug")(bug)
    app.get("/input")(bad_input)
    app.get("/stream")(lambda: StreamingResponse(achunks(), media_type="text/plain"))
    app.get("/sync-stream")(lambda: StreamingResponse(chunks(), media_type="text/plain"))
    app.get("/late")(lambda: StreamingResponse(alate(), media_type="text/plain"))

    @app.get("/thread")
    async def thread() -> str:
        return await run_in_threadpool(complete)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(in_background)
        return "begun"

    @app.get("/handled")
    async def handled() -> Any:
        try:
            return await acomplete()
        except BudgetRefused:
            return PlainTextResponse("meant", 500)

    return app


async def _timed(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def layered() -> Any:
    """FastAPI with middlewares inside and outside that pass on the response by themselves."""
    app = FastAPI(default_response_class=PlainTextResponse)
    app.middleware("http")(_timed)
    app.add_middleware(asgi.BudgetMiddleware, **OPTIONS)
    app.middleware("http")(_timed)
    app.get("/sync")(complete)
    app.get("/async")(acomplete)
    app.get("/wrapped")(wrapped)
    app.get("/stream")(lambda: StreamingResponse(achunks(), media_type="text/plain"))
    app.get("/sync-stream")(lambda: StreamingResponse(chunks(), media_type="text/plain"))
    app.get("/endless")(lambda: StreamingResponse(aendless(), media_type="text/plain"))
    return app


def outermost() -> Any:
    """The middleware outside of FastAPI's own, which answers with a 500 of its own before it raises."""
    app = FastAPI(default_response_class=PlainTextResponse)
    app.get("/sync")(complete)
    app.get("/async")(acomplete)
    app.get("/wrapped")(wrapped)
    app.get("/bug")(bug)
    app.get("/input")(bad_input)

    @app.get("/handled")
    async def handled() -> Any:
        try:
            return await acomplete()
        except BudgetRefused:
            return PlainTextResponse("meant", 500)

    return asgi.BudgetMiddleware(app, **OPTIONS)


def litestar() -> Any:  # noqa: C901  # one function a route
    def text(path: str, function: Callable[[], Any]) -> Any:
        if asyncio.iscoroutinefunction(function):

            async def handler() -> str:
                return await function()  # type: ignore[no-any-return]

            return get(path, media_type=MediaType.TEXT)(handler)

        def sync_handler() -> str:
            return function()  # type: ignore[no-any-return]

        return get(path, media_type=MediaType.TEXT, sync_to_thread=True)(sync_handler)

    def streamed(path: str, function: Callable[[], Any]) -> Any:
        def handler() -> Stream:
            return Stream(function(), media_type=MediaType.TEXT)

        return get(path, sync_to_thread=False)(handler)

    @get("/background", sync_to_thread=False)
    def background() -> Response[str]:
        return Response("begun", media_type=MediaType.TEXT, background=BackgroundTask(in_background))

    @get("/handled")
    async def handled() -> Response[str]:
        try:
            return Response(await acomplete(), media_type=MediaType.TEXT)
        except BudgetRefused:
            return Response("meant", status_code=500, media_type=MediaType.TEXT)

    async def thread() -> str:
        return await asyncio.to_thread(complete)

    return Litestar(
        [
            text("/sync", complete),
            text("/async", acomplete),
            text("/thread", thread),
            text("/wrapped", wrapped),
            text("/bug", bug),
            text("/input", bad_input),
            streamed("/stream", achunks),
            streamed("/sync-stream", chunks),
            streamed("/late", alate),
            streamed("/endless", aendless),
            streamed("/sync-endless", endless),
            background,
            handled,
        ],
        middleware=[DefineMiddleware(asgi.BudgetMiddleware, **OPTIONS)],
        exception_handlers={500: asgi.exception_handler},
    )


def quart() -> Any:
    from quart import Quart

    app = Quart(__name__)
    app.asgi_app = asgi.BudgetMiddleware(app.asgi_app, **OPTIONS)  # type: ignore[method-assign]
    app.register_error_handler(Exception, asgi.error_handler)
    for path, function in (("/sync", complete), ("/async", acomplete), ("/wrapped", wrapped), ("/bug", bug)):
        app.route(path, endpoint=path)(function)
    app.route("/input")(bad_input)

    @app.route("/thread")
    async def thread() -> str:
        return await asyncio.to_thread(complete)

    @app.route("/stream")
    async def stream() -> Any:
        return achunks(), 200, {"Content-Type": "text/plain"}

    @app.route("/sync-stream")
    async def sync_stream() -> Any:
        return chunks(), 200, {"Content-Type": "text/plain"}

    @app.route("/late")
    async def late() -> Any:
        return alate(), 200, {"Content-Type": "text/plain"}

    @app.route("/endless")
    async def never_ending() -> Any:
        return aendless(), 200, {"Content-Type": "text/plain"}

    @app.route("/background")
    async def background() -> str:
        # These tasks outlive the request.
        app.add_background_task(budget_context.carry(in_background))
        return "begun"

    @app.route("/handled")
    async def handled() -> Any:
        try:
            return await acomplete()
        except BudgetRefused:
            return "meant", 500

    return app


def flask() -> Any:  # noqa: C901
    from flask import Flask, stream_with_context
    from flask import Response as FlaskResponse

    app = Flask(__name__)
    app.wsgi_app = wsgi.BudgetMiddleware(app.wsgi_app, **OPTIONS)  # type: ignore[method-assign]
    app.register_error_handler(Exception, wsgi.error_handler)
    for path, function in (("/sync", complete), ("/wrapped", wrapped), ("/bug", bug), ("/input", bad_input)):
        app.route(path, endpoint=path)(function)

    @app.route("/async")
    def in_a_loop() -> str:
        return asyncio.run(acomplete())

    @app.route("/thread")
    def thread() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(contextvars.copy_context().run, complete).result()

    @app.route("/stream")
    def stream() -> Any:
        return FlaskResponse(chunks(), mimetype="text/plain")

    @app.route("/sync-stream")
    def sync_stream() -> Any:
        return FlaskResponse(stream_with_context(chunks()), mimetype="text/plain")

    @app.route("/late")
    def late_stream() -> Any:
        return FlaskResponse(late(), mimetype="text/plain")

    @app.route("/endless")
    def never_ending() -> Any:
        return FlaskResponse(endless(), mimetype="text/plain")

    @app.route("/background")
    def background() -> Any:
        response = FlaskResponse("begun", mimetype="text/plain")
        response.call_on_close(in_background)
        return response

    @app.route("/handled")
    def handled() -> Any:
        try:
            return complete()
        except BudgetRefused:
            return "meant", 500

    return app


def _django() -> None:
    import django
    from django.conf import settings
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    def handled(request: Any) -> Any:
        try:
            return HttpResponse(complete())
        except BudgetRefused:
            return HttpResponse("meant", status=500)

    def background(request: Any) -> Any:
        response = HttpResponse("begun", content_type="text/plain")
        response._resource_closers.append(in_background)
        return response

    async def in_the_loop(request: Any) -> Any:
        return HttpResponse(await acomplete())

    def streamed(function: Callable[[], Any]) -> Any:
        return lambda request: StreamingHttpResponse(function(), content_type="text/plain")

    def plain(function: Callable[[], str]) -> Any:
        return lambda request: HttpResponse(function())

    class Urls:
        urlpatterns = [
            path("sync", plain(complete)),
            path("async", in_the_loop),
            path("wrapped", plain(wrapped)),
            path("bug", plain(bug)),
            path("input", plain(bad_input)),
            path("stream", streamed(chunks)),
            path("sync-stream", streamed(chunks)),
            path("astream", streamed(achunks)),
            path("late", streamed(late)),
            path("endless", streamed(endless)),
            path("aendless", streamed(aendless)),
            path("background", background),
            path("handled", handled),
        ]

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=Urls,
            SECRET_KEY="tests",
            LOGGING_CONFIG=None,
            MIDDLEWARE=["litellm_budget_plugin.wsgi.DjangoRefusals", "django.middleware.common.CommonMiddleware"],
        )
        django.setup()


def django() -> Any:
    from django.core.handlers.wsgi import WSGIHandler

    _django()
    return wsgi.BudgetMiddleware(WSGIHandler(), **OPTIONS)


def django_asgi() -> Any:
    from django.core.handlers.asgi import ASGIHandler

    _django()
    return asgi.BudgetMiddleware(ASGIHandler(), **OPTIONS)


class Served:
    """An application behind a real server in this process, on a free port."""

    def __init__(self, app: Any, *, is_asgi: bool) -> None:
        if is_asgi:
            self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
            self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
            self._uvicorn = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
            self._uvicorn.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            run: Callable[[], Any] = lambda: self._uvicorn.run([self._socket])  # noqa: E731
        else:
            self._werkzeug = make_server("127.0.0.1", 0, app, threaded=True)
            self.url = f"http://127.0.0.1:{self._werkzeug.server_port}"
            run = self._werkzeug.serve_forever
        self._is_asgi = is_asgi
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._is_asgi:
            self._uvicorn.should_exit = True
        else:
            self._werkzeug.shutdown()
        self._thread.join(20)


ASGI = {"starlette": starlette, "fastapi": fastapi, "litestar": litestar, "quart": quart}
WSGI = {"flask": flask, "django": django}
