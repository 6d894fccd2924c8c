"""A server with keys on a ledger of some users, and one without keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from litellm_budget_plugin.core.accounts import Usage, UsageKey
from tests.server.dashboard.desk import ODD_IDS, USD, Tab, account, key_for, load, today
from tests.server.running import Running, running
from tests.stores.postgres import server as postgres


class House(NamedTuple):
    """A server, keys of its project and of another one, and tabs in which the first two keys are logged in."""

    server: Running
    key: str
    reader_key: str
    other_key: str
    tab: Tab
    reader: Tab


@pytest.fixture(autouse=True)
def tabs_are_closed() -> Iterator[None]:
    yield
    while Tab.opened:
        Tab.opened.pop().http.close()


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def fill(url: str) -> None:
    """Fill a ledger: Alice has spent most of her limit, Bob little, Carol has no limit; and there are ids of every kind."""
    day = today()
    load(
        url,
        [
            account("alice", 10 * USD, 9 * USD, USD // 2),
            account("bob", 10 * USD, 2 * USD),
            account("carol", None, 3 * USD),
            *(account(name, 5 * USD, USD, number=number) for number, name in enumerate(ODD_IDS)),
        ],
        [
            (UsageKey("user", "alice", day, "gpt-4o"), Usage(4 * USD, 40, 1000, 200, 10, 0)),
            (UsageKey("user", "alice", day - 3, "o3"), Usage(5 * USD, 10, 500, 100, 0, 0)),
            (UsageKey("user", "bob", day, "gpt-4o"), Usage(2 * USD, 50, 100, 20, 0, 0)),
            *((UsageKey("user", name, day, name), Usage(USD // 4, 1, 1, 1, 1, 0)) for name in ODD_IDS),
        ],
    )


@pytest.fixture
def house(store_url: str) -> Iterator[House]:
    fill(store_url)
    keys = key_for(store_url), key_for(store_url, access="read-only"), key_for(store_url, "another")
    with running(store_url) as server:
        tab, reader = Tab(server.url, keys[0]), Tab(server.url, keys[1])
        yield House(server, *keys, tab, reader)


@pytest.fixture
def open_house(store_url: str) -> Iterator[Running]:
    fill(store_url)
    with running(store_url, open_access=True) as server:
        yield server


def pytest_sessionfinish() -> None:
    """Stop the servers that tests have started."""
    postgres.remove_shared()
