"""Fixtures: servers that a test may harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import Served
from tests.stores.http.server import http_url


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Makes servers that are killed with the test."""
    made: list[Served] = []

    def make(*options: str, **more: Any) -> Served:
        made.append(Served(tmp_path, *options, **more))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty ledger on the shared server."""
    return http_url(tmp_path)
