"""FastAPI: a server on loopback, with an endpoint for each of FastAPI's ways to call LiteLLM."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.frameworks.framework import HELPER, LOST, MODEL, STREAM, Framework, Seen, Setup, Way, take

_CALL: Any = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def _application(worked: threading.Event) -> Any:
    import litellm
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse, StreamingResponse
    from starlette.background import BackgroundTask

    from litellm_budget_plugin import budget_context
    from litellm_budget_plugin.asgi import BudgetMiddleware

    app = FastAPI()
    app.add_middleware(BudgetMiddleware, user="X-User")
    _add_dependencies(app)

    @app.get("/middleware")
    async def middleware() -> str:
        return str((await litellm.acompletion(**_CALL)).choices[0].message.content)

    @app.get("/async/{user}")
    async def asynchronous(user: str) -> str:
        with budget_context(user=user):
            return str((await litellm.acompletion(**_CALL)).choices[0].message.content)

    @app.get("/sync/{user}")
    def synchronous(user: str) -> str:
        with budget_context(user=user):
            return str(litellm.completion(**_CALL).choices[0].message.content)

    @app.get("/stream/{user}")
    async def stream(user: str) -> StreamingResponse:
        with budget_context(user=user):
            chunks = await litellm.acompletion(**_CALL, stream=True)

        async def text() -> AsyncIterator[str]:
            async for chunk in chunks:
                yield f"{chunk.choices[0].delta.content or ''}\n"

        return StreamingResponse(text())

    @app.get("/stream-sync/{user}")
    def stream_sync(user: str) -> StreamingResponse:
        with budget_context(user=user):
            chunks = litellm.completion(**_CALL, stream=True)
        return StreamingResponse(f"{chunk.choices[0].delta.content or ''}\n" for chunk in chunks)

    @app.get("/background/{user}")
    async def background(user: str) -> JSONResponse:
        def work() -> None:
            try:
                with budget_context(user=user):
                    litellm.completion(**_CALL)
            finally:
                worked.set()

        return JSONResponse("later", background=BackgroundTask(work))

    return app


def _add_dependencies(app: Any) -> None:
    """Add endpoints whose user is named by a dependency."""
    import litellm
    from fastapi import Depends

    from litellm_budget_plugin import budget_context

    async def payer(user: str) -> AsyncIterator[None]:
        with budget_context(user=user):
            yield

    def payer_in_a_thread(user: str) -> Iterator[None]:
        with budget_context(user=user):
            yield

    @app.get("/dependency/{user}", dependencies=[Depends(payer)])
    async def by_dependency() -> str:
        return str((await litellm.acompletion(**_CALL)).choices[0].message.content)

    @app.get("/dependency-sync/{user}", dependencies=[Depends(payer_in_a_thread)])
    async def by_dependency_sync() -> str:
        return str((await litellm.acompletion(**_CALL)).choices[0].message.content)


def _ways(setup: Setup) -> list[Way]:
    import httpx
    import uvicorn

    worked = threading.Event()
    server = uvicorn.Server(uvicorn.Config(_application(worked), port=0, log_level="critical"))
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "uvicorn does not start"
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = setup.closing.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))

    def stop() -> None:
        server.should_exit = True
        serving.join(10)

    setup.closing.callback(stop)

    def get(path: str, **headers: str) -> Any:
        answer = client.get(path, headers=headers)
        return answer.text if answer.status_code == 200 else Seen(f"HTTP {answer.status_code}")

    def stream(path: str, user: str, most: int | None) -> Any:
        with client.stream("GET", f"/{path}/{user}") as answer:
            if answer.status_code == 200:
                return take(answer.iter_lines(), most)
            return Seen(f"HTTP {answer.status_code}, before the first byte")

    def background(user: str) -> Any:
        worked.clear()
        get(f"background/{user}")
        assert worked.wait(20)
        return Seen("nothing, the answer has left")

    def at_once(user: str) -> Any:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda path: get(f"{path}/{user}"), ["async", "sync"] * 2))
        return answers[0]

    return [
        Way("`BudgetMiddleware`", lambda user: get("middleware", **{"X-User": user}), context=False),
        Way("an endpoint", lambda user: get(f"async/{user}"), context=False),
        Way("an endpoint in a thread (`def`)", lambda user: get(f"sync/{user}"), context=False),
        Way("StreamingResponse", lambda user, most: stream("stream", user, most), STREAM, context=False),
        Way("StreamingResponse of `def`", lambda user, most: stream("stream-sync", user, most), STREAM, context=False),
        Way("a dependency, `async def`", lambda user: get(f"dependency/{user}"), context=False),
        Way("a dependency, `def`", lambda user: get(f"dependency-sync/{user}"), LOST, context=False),
        Way("a background task", background, context=False),
        Way("requests at once", at_once, HELPER, context=False),
    ]


FRAMEWORK = Framework(
    title="FastAPI",
    requires=("fastapi[standard]",),
    shown=("fastapi",),
    named="`BudgetMiddleware`, or `budget_context` in the endpoint",
    ways=_ways,
)
