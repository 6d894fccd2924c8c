"""Servers of Redis that tests may harm."""

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
    """Starts servers of the test's own, on a port each."""
    servers: list[Server] = []

    def start(*settings: str, **options: bool) -> Server:
        servers.append(Server(*settings, port=free_port(), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
