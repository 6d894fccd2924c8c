"""Redis servers that tests may damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.stores.redis.server import Server, free_port, shared


@pytest.fixture
def url() -> str:
    """An empty ledger on the server that the tests share."""
    return shared().url


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """Start servers for one test, each on its own port."""
    servers: list[Server] = []

    def start(*settings: str, **options: bool) -> Server:
        servers.append(Server(*settings, port=free_port(), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
