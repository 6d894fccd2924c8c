"""A real server: uvicorn on a free port, in a thread of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn

from litellm_budget_plugin.server.app import create_app
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.server.site import Site


class Running(NamedTuple):
    """A server. `url` has no slash at its end and no root path; `site` is the state of its only worker."""

    url: str
    site: Site


@contextmanager
def running(store_url: str, **options: Any) -> Iterator[Running]:
    """Run a server on a ledger with `ServerOptions(store_url, **options)` during the block."""
    app = create_app(ServerOptions(store_url=store_url, **options))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="test-server", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", app.state.site)
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive(), "the server did not end"
