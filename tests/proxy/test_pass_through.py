"""Pass-through routes: refused to who has nothing left, and charged what LiteLLM says that they cost, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.proxy.desk import MESSAGES, WORTH, Proxy, chat_only
from tests.upstream import Upstream

BODY = {"model": "gate-chat", "messages": MESSAGES, "max_tokens": 1000}


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    config = chat_only(shared_upstream.url)
    common = {"include_subpath": True, "auth": True, "headers": {"Authorization": "Bearer sk-upstream"}}
    config["general_settings"]["pass_through_endpoints"] = [
        {"path": "/priced", "target": shared_upstream.url, "cost_per_request": 0.0125, **common},
        {"path": "/raw", "target": shared_upstream.url, **common},
    ]
    return config


def _ask(proxy: Proxy, payer: str, path: str = "/priced", **more: Any) -> httpx.Response:
    return proxy.post(f"sk-user-{payer}", f"{path}/chat/completions", {**BODY, **more})


def test_a_request_is_charged_once(proxy: Proxy, upstream: Upstream) -> None:
    answer = _ask(proxy, "passing")
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert proxy.calm("passing", 1) == WORTH
    assert proxy.usage("passing").calls == 1


def test_who_has_nothing_left_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    for number in range(4):
        assert _ask(proxy, "spent").status_code == 200
        proxy.calm("spent", number + 1)
    answer = _ask(proxy, "spent")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("user 'spent' has spent $0.05 of $0.05")
    assert upstream.requests == 4


def test_the_same_money_pays_for_both_kinds_of_routes(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(4):
        proxy.chat("both")
    proxy.calm("both", 4)
    assert _ask(proxy, "both").status_code == 422
    assert upstream.requests == 4


@pytest.mark.parametrize(
    "forged",
    [
        {"user": "victim"},
        {"metadata": {"budget_user": "victim", "user_api_key_user_id": "victim"}},
        {"litellm_metadata": {"budget_user": "victim", "user_api_key_user_id": "victim"}},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_no_body_names_the_payer(proxy: Proxy, upstream: Upstream, forged: dict[str, Any]) -> None:
    payer = f"passing-{next(iter(forged))}"
    assert _ask(proxy, payer, **forged).status_code == 200
    assert proxy.calm(payer, 1) == WORTH
    assert proxy.state("victim") is None


def test_what_litellm_does_not_price_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    assert _ask(proxy, "free", "/raw").status_code == 200
    assert proxy.calm("free", 1) == 0


def test_a_stream_is_charged_once(proxy: Proxy, upstream: Upstream) -> None:
    assert "word4" in _ask(proxy, "streaming", stream=True).text
    proxy.calm("streaming", 1)
    assert proxy.usage("streaming").calls == 1


def test_an_error_of_the_provider_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-chat"].append(500)
    assert _ask(proxy, "failing").status_code == 500
    assert proxy.calm("failing") == 0


def test_many_at_once_are_each_charged(proxy: Proxy, upstream: Upstream) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: _ask(proxy, "crowd"), range(20))]
    assert set(statuses) <= {200, 422}
    assert proxy.calm("crowd", statuses.count(200)) == statuses.count(200) * WORTH
    assert upstream.requests == statuses.count(200)
