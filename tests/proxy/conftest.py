"""One proxy for the tests of a module, because it takes seconds to start. Each test has its own users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.desk import Proxy, chat_only
from tests.upstream import Upstream, Usage


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The provider behind the module's proxy, reset."""
    shared_upstream.usage = Usage(1000, 1000)
    shared_upstream.report_stream_usage = True
    shared_upstream.script.clear()
    shared_upstream.served.clear()
    shared_upstream.bodies.clear()
    shared_upstream.requests = 0
    shared_upstream.release.clear()
    return shared_upstream


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    """The proxy's config. Modules that need more make their own."""
    return chat_only(shared_upstream.url)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> Iterator[Proxy]:
    running = Proxy(tmp_path_factory.mktemp("proxy"), config)
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Start a proxy for one test only."""
    started: list[Proxy] = []

    def start_one(config: dict[str, Any], **settings: Any) -> Proxy:
        started.append(Proxy(tmp_path, config, **settings))
        return started[-1]

    yield start_one
    for running in started:
        running.stop()
