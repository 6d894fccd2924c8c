"""LiteLLM's calls on a ledger behind a self-hosted endpoint, with each way to name the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import litellm
import pytest

from litellm_budget_plugin import (
    BudgetExceeded,
    BudgetManager,
    BudgetSettings,
    BudgetStoreError,
    BudgetStoreUnavailable,
)
from litellm_budget_plugin.core.money import usd_float
from tests.hooks.desk import WORTH, Desk, forty_at_once
from tests.server.process import Served
from tests.upstream import Upstream

Open = Callable[..., Desk]
PROJECT = "shop"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A server that has keys."""
    served = Served(tmp_path)
    served.create_key("another")
    served.terminate()
    served.start()
    yield served
    served.kill()


@pytest.fixture
def remote(server: Served, open_desk: Open, tmp_path: Path) -> Open:
    """Open desks on the endpoint with a valid key, with the journal in the test's folder."""
    key = server.create_key(PROJECT)
    settings = {"store_url": server.base, "api_key": key, "project": PROJECT, "journal": str(tmp_path / "journal")}
    # Longer than the default: these tests are about what is held, on machines that are busy.
    return lambda **more: open_desk(**{**settings, "store_timeout": 5, **more})


def test_forty_tasks_with_room_for_four(remote: Open, upstream: Upstream) -> None:
    desk = remote(default_limit="0.05", store_timeout=10)
    outcomes = forty_at_once(desk, "alice")
    assert upstream.requests == 4
    assert sum(isinstance(outcome, BudgetExceeded) for outcome in outcomes) == 36
    assert desk.calm("alice") == 4 * WORTH


@pytest.mark.parametrize("kind", ["client", "hosted"])
def test_litellms_words_for_it(remote: Open, server: Served, upstream: Upstream, kind: str) -> None:
    """CLIENT_TYPE and API_BASE instead of STORE_URL, and the key as a header as LiteLLM's manager sends it."""
    desk = remote(store_url=server.base)
    litellm.completion(**desk.arguments("alice"))
    desk.callback.flush()
    bearer = {"Authorization": f"Bearer {server.create_key(PROJECT)}"}
    other = remote(store_url=None, client_type=kind, api_base=server.base, api_key=None, headers=bearer)
    assert other.spent("alice") == WORTH
    litellm.completion(**other.arguments("alice"))
    assert other.calm("alice") == 2 * WORTH == desk.spent("alice")


def test_a_killed_server_refuses_and_loses_nothing(
    remote: Open, server: Served, upstream: Upstream, tmp_path: Path
) -> None:
    """A call in flight is charged once, when the server is reachable again."""
    desk = remote(default_limit="10", store_timeout=0.5)
    litellm.completion(**desk.arguments("alice"))
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    server.kill()
    for _ in stream:
        pass
    for _ in range(5):
        with pytest.raises(BudgetStoreUnavailable):
            litellm.completion(**desk.arguments("alice"))
    assert upstream.requests == 2
    with pytest.raises(BudgetStoreUnavailable):
        desk.callback.flush()
    assert len(list((tmp_path / "journal").iterdir())) == 1
    server.start()
    assert desk.calm("alice") == 2 * WORTH
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_service_starts_while_its_endpoint_is_away(remote: Open, server: Served, upstream: Upstream) -> None:
    server.kill()
    desk = remote(default_limit="10", store_timeout=0.5, on_store_error="allow")
    litellm.completion(**desk.arguments("alice"))
    server.start()
    assert desk.calm("alice") == WORTH


def test_a_key_that_opens_another_project_stops_the_start(remote: Open, server: Served) -> None:
    with pytest.raises(BudgetStoreError, match="does not open the project 'shop'"):
        remote(api_key=server.create_key("another"))
    with pytest.raises(BudgetStoreError, match="LITELLM_BUDGET_API_KEY"):
        remote(api_key="lbk_nonsense")
    with pytest.raises(BudgetStoreError, match="the key is read-only, and calls must be charged"):
        remote(api_key=server.create_key(PROJECT, "read-only"))


def test_a_key_that_only_reads_is_good_for_looking(
    remote: Open, server: Served, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = remote()
    litellm.completion(**desk.arguments("alice"))
    desk.callback.flush()
    settings = {
        "store_url": server.base,
        "api_key": server.create_key(PROJECT, "read-only"),
        "store_timeout": 5,
        "default_limit": 1,
    }
    with closing(BudgetManager(PROJECT, settings=BudgetSettings(**settings))) as reader:
        assert reader.get_current_cost("alice") == usd_float(WORTH)
        with pytest.raises(BudgetStoreError, match="this key is read-only"):
            reader.create_budget(1.0, "alice")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
