"""A server for the tests: one process with an empty ledger, in memory and with a test clock, under each requested prefix.

python -m tests.stores.http.server LISTENING_SOCKET
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from litellm_budget_plugin.server.app import create_app
from litellm_budget_plugin.server.options import ServerOptions
from tests.stores.processes import die_with_the_parent

ROOT = Path(__file__).parents[3]


_MOST = 16
"""The number of ledgers at the same time. Each has threads and an upkeep, and hundreds of them would keep a processor busy."""


class Ledgers:
    """An ASGI application with a separate application under each first part of a path. It is made on the first request,
    and ended after `_MOST` others have been requested since.
    """

    def __init__(self) -> None:
        self._apps: dict[str, tuple[Any, AsyncExitStack]] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        prefix = "/" + scope["path"].split("/")[1]
        if prefix not in self._apps:
            options = ServerOptions("memory://", store_timeout=30.0, open_access=True, rate=0, test_clock=True)
            app, life = create_app(options), AsyncExitStack()
            self._apps[prefix] = app, life
            await life.enter_async_context(app.router.lifespan_context(app))
        # The last one requested is at the end.
        app, life = self._apps[prefix] = self._apps.pop(prefix)
        if len(self._apps) > _MOST:
            await self._apps.pop(next(iter(self._apps)))[1].aclose()
        path = scope["path"].removeprefix(prefix) or "/"
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for _, life in self._apps.values():
            await life.aclose()
        await send({"type": "lifespan.shutdown.complete"})


class Shared:
    """The process, listening from the first moment."""

    def __init__(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(512)
            self.port = listening.getsockname()[1]
            command = [sys.executable, "-m", "tests.stores.http.server", str(listening.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=(listening.fileno(),), preexec_fn=die_with_the_parent
            )
        atexit.register(self._end, os.getpid())
        # So no test's time-out includes the start of the process.
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/begin/healthz", timeout=60):
            pass

    def _end(self, pid: int) -> None:
        if os.getpid() == pid:
            self._process.kill()
            self._process.wait()


_numbers = count()


@cache
def shared() -> Shared:
    """The server of this test process."""
    return Shared()


def http_url(directory: Path) -> str:
    """The URL of an empty ledger on the shared server."""
    return f"http://127.0.0.1:{shared().port}/{next(_numbers)}"


if __name__ == "__main__":
    import uvicorn

    # Declared as TCP, because asyncio switches Nagle's delay off only then.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=int(sys.argv[1]))
    config = uvicorn.Config(Ledgers(), log_level="error", access_log=False, timeout_keep_alive=75)
    uvicorn.Server(config).run(sockets=[listening])
