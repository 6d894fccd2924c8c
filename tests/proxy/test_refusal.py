"""A refusal by the proxy: HTTP 422 in OpenAI's form, before anything is sent, without effect on other users."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.proxy.desk import MESSAGES, WORTH, Proxy, chat_only
from tests.upstream import Upstream, Usage


def test_a_call_is_charged(proxy: Proxy, upstream: Upstream) -> None:
    assert proxy.chat("paying").choices[0].message.content == "hello"
    assert proxy.calm("paying", 1) == WORTH
    assert proxy.costs("paying") == {"gate-chat": 0.0125}


def test_a_refusal_names_the_budget(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(4):
        proxy.chat("spender")
    assert proxy.calm("spender", 4) == 4 * WORTH
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        proxy.chat("spender")
    assert caught.value.body == {
        "message": "user 'spender' has spent $0.05 of $0.05; this chat call may cost $0.0125",
        "type": "budget_exceeded",
        "param": None,
        "code": "422",
    }
    assert upstream.requests == 4
    assert proxy.usage("spender").refusals == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_comes_before_the_first_byte(proxy: Proxy, upstream: Upstream, stream: bool) -> None:
    body = {"model": "chat", "messages": MESSAGES, "max_tokens": 100_000, "stream": stream}
    answer = proxy.post("sk-user-eager", "/v1/chat/completions", body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert "eager" in answer.json()["error"]["message"]
    assert upstream.requests == 0


def test_a_refusal_harms_nobody_else(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(20):
        with pytest.raises(openai.UnprocessableEntityError):
            proxy.chat("greedy", max_tokens=100_000)
    assert proxy.chat("modest").choices
    assert upstream.requests == 1


def test_nothing_of_ours_reaches_the_provider(proxy: Proxy, upstream: Upstream) -> None:
    proxy.chat("private")
    assert set(upstream.bodies[0]) == {"model", "messages", "max_tokens"}


def _outcome(proxy: Proxy, user: str) -> str:
    try:
        proxy.chat(user)
    except openai.UnprocessableEntityError:
        return "refused"
    return "served"


def test_forty_calls_at_once_and_room_for_four(proxy: Proxy, upstream: Upstream) -> None:
    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(lambda _: _outcome(proxy, "crowd"), range(40)))
    assert (outcomes.count("served"), outcomes.count("refused")) == (4, 36)
    assert upstream.requests == 4
    assert proxy.calm("crowd", 4) == 4 * WORTH
    assert proxy.usage("crowd").refusals == 36


def test_two_proxies_keep_one_limit(start: Callable[..., Proxy], shared_upstream: Upstream) -> None:
    """They share a ledger as one proxy's workers do. uvicorn would end workers that a busy machine starts too slowly."""
    shared_upstream.usage = Usage(1000, 1000)
    shared_upstream.requests = 0
    proxies = [start(chat_only(shared_upstream.url)) for _ in range(2)]
    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(lambda number: _outcome(proxies[number % 2], "crowd"), range(40)))
    assert (outcomes.count("served"), outcomes.count("refused")) == (4, 36)
    assert shared_upstream.requests == 4
    assert proxies[0].calm("crowd", 4) == 4 * WORTH
