"""Fixtures: servers for single tests and for modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import Served


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return a function that starts servers, which are killed after the test."""
    made: list[Served] = []

    def make(*options: str, **more: Any) -> Served:
        made.append(Served(tmp_path, *options, **more))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without keys for all tests of a module, each of which uses its own projects."""
    server = Served(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()
