"""Fixtures: the stores under test, and the commands that most tests send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.engines import ENGINES, LOCAL
from tests.stores.postgres import server as postgres


@pytest.fixture(params=sorted(ENGINES))
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, for every engine in turn."""
    return ENGINES[request.param](tmp_path)


@pytest.fixture(params=LOCAL)
def local_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, for every engine of this process in turn."""
    return ENGINES[request.param](tmp_path)


@pytest.fixture
def opened() -> Iterator[Callable[..., Store]]:
    """`open_store`; the opened stores are closed at the end."""
    stores: list[Store] = []

    def open_one(url: str, **options: object) -> Store:
        stores.append(open_store(url, **options))  # type: ignore[arg-type]
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of the SQLite tests' ledger."""
    return tmp_path / "ledger.db"


def pytest_sessionfinish() -> None:
    """End the servers that tests have started."""
    postgres.remove_shared()
