"""The store uses LiteLLM's protocol with an endpoint that is not ours, and our endpoint understands that protocol, too."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import litellm
import pytest
import respx
from httpx import Request, Response

from litellm_budget_plugin import BudgetCallback, BudgetExceeded, BudgetManager
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget, Settle, Settled
from litellm_budget_plugin.core.wire import dumps
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.hosted import HostedStore
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.client import HttpClient
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.server.running import running
from tests.stores.desk import account_of, charge_of
from tests.stores.hosted.desk import later
from tests.stores.hosted.endpoint import Endpoint
from tests.stores.http.fake import GOOD, Said
from tests.stores.http.fake import running as running_fake

HOSTED = "https://api.litellm.ai"


@pytest.mark.parametrize("status", [404, 405, 401, 403, 200])
def test_the_exchange_is_litellms(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """The bytes are equal except for spaces, with the given headers."""
    with respx.mock(base_url=HOSTED, using="httpcore") as mock:
        asked = mock.get("/v1").mock(return_value=Response(status))
        kept: list[dict[str, Any]] = []

        def answer_get(_: Request) -> Response:
            return Response(200, json={"status": "success", "data": kept[-1]} if kept else {"status": "error"})

        def answer_set(request: Request) -> Response:
            kept.append(json.loads(request.content)["user_dict"])
            return Response(200, json={"status": "success"})

        get = mock.post("/get_budget").mock(side_effect=answer_get)
        put = mock.post("/set_budget").mock(side_effect=answer_set)
        manager = BudgetManager("shop", client_type="hosted", headers={"Authorization": "Bearer sk-1", "X-Org": "1"})
        manager.create_budget(total_budget=10, user="alice")
        manager.close()
        assert asked.call_count == 1
    assert json.loads(get.calls[-1].request.content) == {"project_name": "shop"}
    sent = json.loads(put.calls[-1].request.content)
    assert sent.keys() == {"project_name", "user_dict"} and sent["project_name"] == "shop"
    assert sent["user_dict"]["alice"]["total_budget"] == 10.0
    for call in (*get.calls, *put.calls):
        headers = call.request.headers
        assert (headers["authorization"], headers["x-org"]) == ("Bearer sk-1", "1")
        assert headers["content-type"] == "application/json"
    said = [record for record in caplog.records if "the last writer wins" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "run litellm-budget serve" in said[0].getMessage()


def test_a_server_error_decides_nothing() -> None:
    """The endpoint may be ours, and temporarily unreachable."""
    with respx.mock(base_url=HOSTED, using="httpcore") as mock:
        mock.get("/v1").mock(return_value=Response(502))
        with pytest.raises(BudgetStoreUnavailable, match="answered 502"):
            open_store(HOSTED, timeout=0.5)


@pytest.mark.parametrize(
    "page",
    [
        Said(404, b'{"message": "no Route matched"}', {}),
        Said(404, b"404 page not found", {}),
        Said(200, b"<html>Welcome</html>", {}),
        Said(200, b"", {}),
    ],
)
def test_a_proxys_own_page_decides_nothing(page: Said) -> None:
    """Our server may be behind it a moment later."""
    with running_fake(page, hello=page) as fake:
        url = f"http://{fake.base}"
        store = LazyStore("the endpoint", lambda seconds: open_store(url, timeout=seconds), 5.0)
        for _ in range(2):
            with pytest.raises(BudgetStoreError, match="get_budget"):
                store.execute(charge_of("h"))
        fake.hello, fake.answers = GOOD, [Said(200, dumps(Settled("h")).encode())]
        assert store.execute(charge_of("h")) == Settled("h")
        store.close()


def test_ours_that_begins_to_answer_in_between_is_asked_again() -> None:
    """It also understands LiteLLM's protocol, but that must not be used with it."""
    ours = Said(200, b'{"status": "error"}')
    with (
        running_fake(ours, hello=Said(404, b"404 page not found", {})) as fake,
        pytest.raises(BudgetStoreUnavailable, match="has just begun to answer"),
    ):
        open_store(f"http://{fake.base}")


def test_the_callback_holds_on_such_an_endpoint(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only LITELLM_BUDGET_CLIENT_TYPE selects it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITELLM_BUDGET_CLIENT_TYPE", "hosted")
    monkeypatch.setenv("LITELLM_BUDGET_API_BASE", endpoint.url)
    call = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "mock_response": "Hello!"}
    callback = BudgetCallback(default_limit="0.002", project="shop", store_timeout=5)
    litellm.callbacks = [callback]
    try:
        litellm.completion(**call, max_tokens=100, user="alice")
        with pytest.raises(BudgetExceeded):
            litellm.completion(**call, max_tokens=1000, user="alice")
        callback.flush()
    finally:
        litellm.callbacks = []
        callback.close()
    record = endpoint.data["shop"]["alice"]
    assert record["default"] is True and 0 < record["current_cost"] < 0.002
    assert record["model_cost"] == {"gpt-4o": record["current_cost"]}


def test_litellms_protocol_against_our_server(tmp_path: Path) -> None:
    """Two stores in turn, with limits, spend and users who follow a default."""
    with running(f"sqlite:///{tmp_path}/ledger.db", open_access=True) as server:
        first, second = (
            HostedStore(HttpClient(parse_address("http", server.url.removeprefix("http://")))) for _ in range(2)
        )
        put = PutBudget("c", "p", Subject("user", "bob"), limit=2000, window="1d")
        assert ask(first, put)
        for number in range(4):
            ask((first, second)[number % 2], charge_of(f"h{number}", usd=7))
            ask((first, second)[number % 2], Settle(f"b{number}", "p", (Subject("user", "bob"),), ("m",), 10, "m"))
        for store in (first, second):
            later(store)
            assert account_of(store).spent == 28 and not account_of(store).pinned
        ours = open_store(server.url)
        assert account_of(ours).spent == 28 and not account_of(ours).pinned
        manager = BudgetManager("p", client_type="client", api_base=server.url)
        assert manager.get_current_cost("bob") == pytest.approx(40e-9)
        assert manager.user_dict["bob"]["duration"] == 1
        manager.close()
        for store in (first, second, ours):
            store.close()


def test_a_closed_store_lets_go_of_its_connections(endpoint: Endpoint) -> None:
    store = open_store(endpoint.url)
    store.execute(charge_of("h"))
    store.close()
    store.close()
    with pytest.raises(BudgetStoreError, match="closed"):
        store.execute(charge_of("h"), time.monotonic())
