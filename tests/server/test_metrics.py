"""/metrics: the server's metrics, and the clients that may see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from litellm_budget_plugin.core.accounts import SCOPES, Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Refused, Reserve, Settle
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.metrics import of_project
from litellm_budget_plugin.server.keys import create_key
from litellm_budget_plugin.stores.registry import open_store
from tests.server.process import Served
from tests.server.running import running

PREFIX = "litellm_budget_"
LIMIT = (Default("user", "none", 1_000_000_000),)
OwnServer = Callable[..., Served]


def shown(text: str, name: str, **labels: str) -> float:
    """Return the sum of a family's samples with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
    )


def spend(url: str, project: str, calls: int, who: str = "a") -> None:
    """Make this many calls of half a dollar by one user, whose limit is one dollar."""
    store = open_store(url)
    for number in range(calls):
        user, hold = (Subject("user", who),), f"{project}-{who}-{number}"
        store.execute(Reserve(hold, project, user, ("m",), Amounts(500_000_000), 60_000_000, LIMIT))
        if number < 2:
            store.execute_all([Settle(hold, project, user, ("m",), 500_000_000, "m", defaults=LIMIT)])
    store.close()


def test_an_open_server_shows_everything(own_server: OwnServer) -> None:
    server = own_server()
    spend(server.url(), "p", 3)
    answer = httpx.get(f"{server.base}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert shown(answer.text, "spend_usd_total", project="p", model="m") == 1.0
    assert shown(answer.text, "refusals_total", project="p", scope="user", reason="spent") == 1
    assert shown(answer.text, "reserve_seconds_count", project="p") == 3
    assert shown(answer.text, "held_usd", project="p") == 0
    assert '"a"' not in answer.text
    openmetrics = httpx.get(f"{server.base}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.text.endswith("# EOF\n")


def test_refusals_say_the_scope_of_the_budget(tmp_path: Path) -> None:
    """Only known scopes appear: a scope that a client makes up is refused before it is counted."""
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        store = open_store(server.url)
        for scope in (*SCOPES, "made-up"):
            command = Reserve(
                scope, "p", (Subject(scope, "x"),), ("m",), Amounts(2), 60_000_000, (Default(scope, "none", 1),)
            )
            if scope in SCOPES:
                assert isinstance(store.execute(command), Refused)
            else:
                with pytest.raises(BudgetInputError, match="a scope must be one of"):
                    store.execute(command)
        store.close()
        text = httpx.get(f"{server.url}/metrics").text
        assert [shown(text, "refusals_total", scope=scope, reason="spent") for scope in SCOPES] == [1] * len(SCOPES)
        assert "made-up" not in text


def test_a_key_shows_its_own_project(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    store = open_store(url)
    names = ("p", 'p" x="\\')
    keys = {name: create_key(store, name)[1] for name in names}
    store.close()
    with running(url) as server:
        for name in names:
            spend(server.url.replace("http://", f"http://:{keys[name]}@"), name, 1)
        for name in names:
            text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {keys[name]}"}).text
            assert shown(text, "spend_usd_total") == shown(text, "spend_usd_total", project=name) == 0.5
        assert httpx.get(f"{server.url}/metrics").status_code == 401
    with running(url, open_metrics=True) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        assert httpx.get(f"{server.url}/v1").status_code == 401


def test_several_workers_are_counted_together(own_server: OwnServer) -> None:
    """Every worker shows the sum."""
    server = own_server("--workers", "2")
    for number in range(8):
        spend(server.url(), "p", 2, who=f"a{number}")
    texts = [httpx.get(f"{server.base}/metrics").text for _ in range(8)]
    assert {shown(text, "spend_usd_total", project="p") for text in texts} == {8.0}
    assert {shown(text, "reserve_seconds_count", project="p") for text in texts} == {16}


def test_a_store_that_fails_is_counted(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        server.site.ledger.store.close()
        server.site.rosters.store().close()
        read = {"type": "Read", "project": "p", "scope": "user"}
        asked = (("/get_budget", {"project_name": "p"}), ("/v1/command", read))
        for path, body in asked:
            before = shown(httpx.get(f"{server.url}/metrics").text, "store_errors_total", kind="error")
            assert httpx.post(server.url + path, json=body).status_code == 503
            # The scrape itself asks the store for forecasts, which fails, too.
            after = shown(httpx.get(f"{server.url}/metrics").text, "store_errors_total", kind="error")
            assert after == before + 2


def test_lines_of_no_project_stay() -> None:
    text = b'# HELP a b\na_total{kind="x"} 1.0\nb{project="p"} 1.0\nb{project="pp"} 2.0\n# EOF\n'
    assert of_project(text, "p") == b'# HELP a b\na_total{kind="x"} 1.0\nb{project="p"} 1.0\n# EOF\n'
