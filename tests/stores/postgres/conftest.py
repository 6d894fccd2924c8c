"""PostgreSQL servers, and queries of their content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.stores.postgres.server import Server, shared

Look = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def url() -> str:
    """An empty ledger on the server that the tests share."""
    return shared().url()


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """Start servers for one test."""
    servers: list[Server] = []

    def start(*settings: str, **options: str) -> Server:
        servers.append(Server(*settings, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def look() -> Look:
    """Return the rows of a statement, run on a URL's server without the store."""

    def run(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        place, _, parameters = url.partition("?")
        host = dict(pair.split("=") for pair in parameters.split("&"))["host"]
        with psycopg.connect(f"{place}?host={host}", autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    return run
