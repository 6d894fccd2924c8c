"""Refusals, and requests that the proxy itself turns down, do not affect the proxy's deployments or the users' money."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.proxy.desk import CHAT, CHEAP, WORTH, Proxy, chat_only, deployment
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    """One failure cools a deployment down for longer than the tests run."""
    url = shared_upstream.url
    config = chat_only(url)
    config["model_list"] += [
        deployment("broken", "openai/gate-broken", url, CHEAP),
        deployment("costly", "openai/gate-costly", url, (0, 125_000)),
        deployment("partly", "openai/gate-partly", url, CHAT),
        deployment("partly", "openai/gate-unknown", url, None),
    ]
    config["router_settings"] = {
        "num_retries": 2,
        "retry_after": 0,
        "allowed_fails": 0,
        "cooldown_time": 600,
        "fallbacks": [{"broken": ["costly"]}],
    }
    return config


def test_a_refusal_of_an_attempt_cools_nothing_down(proxy: Proxy, upstream: Upstream) -> None:
    """One of two deployments has no price, so it is refused whenever the Router chooses it. It must still be chosen
    afterwards.
    """
    outcomes = []
    for number in range(30):
        try:
            proxy.chat(f"either-{number}", "partly")
            outcomes.append("served")
        except openai.UnprocessableEntityError:
            outcomes.append("refused")
    assert min(outcomes.count("served"), outcomes.count("refused")) > 3
    assert set(upstream.served) == {"gate-partly"}


def test_a_refused_fallback_is_told_with_the_error_that_led_to_it(proxy: Proxy, upstream: Upstream) -> None:
    """The broken group is cheap enough, its fallback is not. The fallback is refused when it is about to be called."""
    upstream.script["gate-broken"].append(500)
    with pytest.raises(openai.InternalServerError) as failed:
        proxy.chat("short", "broken")
    assert "user 'short' has spent" in str(failed.value)
    assert "gate-costly" not in upstream.served
    assert proxy.calm("short") == 0
    proxy.chat("long", "costly", max_tokens=100)
    assert upstream.served == ["gate-costly"]


def test_a_request_that_the_proxy_turns_down_holds_nothing(proxy: Proxy, upstream: Upstream) -> None:
    """An unknown group has no deployments. The proxy reports this after the gate."""
    with pytest.raises(openai.BadRequestError):
        proxy.chat("lost", "nothing-of-the-kind")
    assert proxy.calm("lost") == 0
    assert proxy.usage("lost").refusals == 0


def test_a_call_after_an_error_finds_its_room_again(proxy: Proxy, upstream: Upstream) -> None:
    """Four times what the limit has room for, one failure after the other."""
    for _ in range(4):
        upstream.script["gate-chat"].append(400)
        with pytest.raises(openai.BadRequestError):
            proxy.chat("trying", max_tokens=4000)
    proxy.chat("trying", max_tokens=4000)
    assert proxy.calm("trying", 1) == WORTH
