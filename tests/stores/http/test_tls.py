"""An endpoint behind TLS that offers HTTP/2, as proxies in front of real endpoints do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from litellm_budget_plugin.core.commands import Settled
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.server.app import create_app
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.registry import open_store
from tests.server.process import free_port
from tests.stores.desk import calls_of, charge_of
from tests.stores.redis.test_tls import certify

Opener = Callable[..., Any]


class Secure(NamedTuple):
    """Its address, the file of its certificate, and the HTTP versions of its requests."""

    place: str
    certificate: Path
    versions: set[str]


@pytest.fixture(params=[["h2", "http/1.1"], ["http/1.1"]], ids=["h2", "http1"])
def secure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Secure]:
    """A server that offers these protocols."""
    certificate, key = certify(tmp_path)
    config, port, versions = Config(), free_port(), set[str]()
    config.bind, config.alpn_protocols = [f"127.0.0.1:{port}"], request.param
    config.certfile, config.keyfile, config.errorlog = str(certificate), str(key), None
    app = create_app(ServerOptions("memory://", open_access=True, rate=0))

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # The server is hypercorn, because uvicorn has no HTTP/2.
            versions.add(scope["http_version"])
        await app(scope, receive, send)

    loop, ready = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def run() -> None:
        task = asyncio.create_task(serve(noting, config, shutdown_trigger=ended.wait))
        ready.set()
        await task

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    ready.wait()
    yield Secure(f"127.0.0.1:{port}", certificate, versions)
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def _opened(opened: Opener, url: str) -> Any:
    while True:
        try:
            return opened(url)
        except BudgetStoreUnavailable as error:
            # It is not listening yet.
            assert "could not be made" in str(error) and "certificate" not in str(error), error


def test_the_newest_http_that_is_offered(secure: Secure, opened: Opener, request: pytest.FixtureRequest) -> None:
    """Used from several threads, whose requests share one connection in HTTP/2."""
    store = _opened(opened, f"https://{secure.place}?ca={secure.certificate}")
    threads = [threading.Thread(target=store.execute, args=(charge_of(f"h{n}"), 10.0)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.execute(charge_of("h0")) == Settled("h0")
    assert calls_of(store) == 20
    assert secure.versions == ({"2"} if request.node.callspec.id == "h2" else {"1.1"})


def test_a_certificate_that_nobody_knows(secure: Secure, opened: Opener) -> None:
    _opened(opened, f"https://{secure.place}?ca={secure.certificate}")
    with pytest.raises(BudgetStoreUnavailable, match="certificate verify failed|self-signed"):
        open_store(f"https://{secure.place}")
