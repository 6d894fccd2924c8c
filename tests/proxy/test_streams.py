"""Streams through the proxy: read to the end, left in the middle, cut off by the provider."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from tests.proxy.desk import DEAR, MESSAGES, WORTH, Proxy, chat_only, deployment
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    config = chat_only(shared_upstream.url)
    config["model_list"].append(deployment("dear", "openai/gate-dear", shared_upstream.url, DEAR))
    config["router_settings"] = {"num_retries": 0, "disable_cooldowns": True}
    return config


def test_a_finished_stream_is_charged_by_its_usage(proxy: Proxy, upstream: Upstream) -> None:
    chunks = list(proxy.chat("reader", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).startswith("word0")
    assert proxy.calm("reader", 1) == WORTH


def test_a_client_that_asks_for_usage_gets_it(proxy: Proxy, upstream: Upstream) -> None:
    chunks = list(proxy.chat("counter", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 1000
    assert proxy.calm("counter", 1) == WORTH


def test_four_finished_streams_spend_the_limit(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(4):
        list(proxy.chat("streamer", stream=True))
    assert proxy.calm("streamer", 4) == 4 * WORTH
    body = {"model": "chat", "messages": MESSAGES, "max_tokens": 1000, "stream": True}
    answer = proxy.post("sk-user-streamer", "/v1/chat/completions", body)
    assert answer.status_code == 422
    assert upstream.requests == 4


def _begin(proxy: Proxy, user: str) -> tuple[httpx.Client, httpx.Response]:
    client = httpx.Client(timeout=60)
    body = {"model": "dear", "messages": MESSAGES, "max_tokens": 1000, "stream": True}
    headers = {"Authorization": f"Bearer sk-user-{user}"}
    request = client.build_request("POST", f"{proxy.url}/v1/chat/completions", json=body, headers=headers)
    response = client.send(request, stream=True)
    assert response.status_code == 200
    return client, response


def test_a_client_that_goes_away_pays_for_what_was_received(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-dear"].append("hang-stream")
    client, response = _begin(proxy, "leaver")
    lines = response.iter_lines()
    while "word1" not in next(lines):
        pass
    assert proxy.held("leaver") > 1000 * DEAR[1]
    response.close()
    client.close()
    upstream.release.set()
    spent = proxy.calm("leaver", 1)
    # "word0 word1 " is a few tokens. The whole answer would be a thousand.
    assert 2 * DEAR[1] <= spent < 30 * DEAR[1]


def test_clients_that_go_away_give_their_room_back(proxy: Proxy, upstream: Upstream) -> None:
    """There is room for three such streams at a time."""
    for number in range(8):
        upstream.script["gate-dear"].append("hang-stream")
        deadline = time.monotonic() + 30
        while proxy.held("visitor"):
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        client, response = _begin(proxy, "visitor")
        lines = response.iter_lines()
        while "word1" not in next(lines):
            pass
        response.close()
        client.close()
        upstream.release.set()
        proxy.calm("visitor", number + 1)
        upstream.release.clear()
    assert proxy.spent("visitor") < 8 * 30 * DEAR[1]


def test_a_stream_that_the_provider_cuts_is_charged_as_far_as_it_came(proxy: Proxy, upstream: Upstream) -> None:
    """LiteLLM's transport can drop what it has read when the connection breaks. The input is charged in any case."""
    upstream.script["gate-dear"].append("cut-stream")
    body = {"model": "dear", "messages": MESSAGES, "max_tokens": 1000, "stream": True}
    proxy.post("sk-user-cut-off", "/v1/chat/completions", body)
    spent = proxy.calm("cut-off", 1)
    assert 0 < spent < 30 * DEAR[1]
