"""One hold for each request, for the most expensive deployment of its group. One charge for each attempt, at its own
price.
"""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.proxy.desk import CHAT, CHEAP, DEAR, EMBED, MESSAGES, WORTH, Proxy, chat_only, deployment
from tests.upstream import Upstream

# The cost of the same request at the two deployments of the group "mixed".
DEAR_WORTH, CHEAP_WORTH = 1000 * sum(DEAR), 1000 * sum(CHEAP)


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    url = shared_upstream.url
    nowhere = "http://127.0.0.1:9/v1"
    config = chat_only(url)
    config["model_list"] += [
        deployment("mixed", "openai/gate-cheap", url, CHEAP),
        deployment("mixed", "openai/gate-dear", url, DEAR),
        deployment("gate-twin", "openai/gate-twin", url, CHEAP),
        deployment("gate-twin", "openai/gate-twin", url, DEAR),
        deployment("embed", "openai/gate-embed", url, EMBED),
        deployment("text", "text-completion-openai/gate-text", url, CHAT),
        deployment("failing", "openai/gate-failing", url, DEAR),
        deployment("costly", "openai/gate-costly", url, (0, 125_000)),
        deployment("spare", "openai/gate-spare", url, CHEAP),
        deployment("unpriced", "openai/gate-unpriced", url, None),
        deployment("half-priced", "openai/gate-unpriced", url, None),
        deployment("half-priced", "openai/gate-chat", url, CHAT, weight=1000),
        deployment("wild/*", "openai/*", url, CHAT),
        deployment("away", "openai/gate-away", nowhere, CHAT),
        deployment("mapped", "openai/gpt-4o", url, None),
        deployment("mapped-cheap", "openai/gpt-4o-mini", url, None),
    ]
    config["router_settings"] = {
        "num_retries": 2,
        "retry_after": 0,
        "disable_cooldowns": True,
        "model_group_alias": {"nick": "chat"},
        "fallbacks": [{"failing": ["spare"]}, {"costly": ["spare"]}, {"away": ["chat"]}],
    }
    return config


def _refused(proxy: Proxy, user: str, model: str, **more: Any) -> str:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        proxy.chat(user, model, **more)
    return str(caught.value)


def test_a_group_holds_what_its_dearest_deployment_may_cost(proxy: Proxy, upstream: Upstream) -> None:
    """3,900 output tokens cost $0.00975 at the cheap deployment and $0.04875 at the expensive one. The input adds to
    that.
    """
    message = _refused(proxy, "by-the-dearest", "mixed", max_tokens=3_999)
    assert "this mixed call may cost $0.05" in message
    assert upstream.requests == 0
    proxy.chat("by-the-dearest", "mixed", max_tokens=3_000)
    assert proxy.calm("by-the-dearest", 1) in (DEAR_WORTH, CHEAP_WORTH)


def test_each_deployment_is_charged_at_its_own_price(proxy: Proxy, upstream: Upstream) -> None:
    """There is no room for the hold for the group and the one for the expensive deployment together. One replaces the
    other.
    """
    for number in range(12):
        proxy.chat(f"mixed-{number}", "mixed", max_tokens=3000)
    prices = {"gate-dear": DEAR_WORTH, "gate-cheap": CHEAP_WORTH}
    assert set(upstream.served) == set(prices)
    for number, model in enumerate(upstream.served):
        assert proxy.calm(f"mixed-{number}", 1) == prices[model]
        assert list(proxy.costs(f"mixed-{number}")) == [model]


def test_while_a_call_runs_its_deployments_own_price_is_held(proxy: Proxy, upstream: Upstream) -> None:
    """A stream that the provider does not finish. By then the Router has chosen."""
    upstream.script["gate-dear"].append("hang-stream")
    upstream.script["gate-cheap"].append("hang-stream")
    stream = proxy.chat("holding", "mixed", stream=True)
    try:
        next(stream)
        model = upstream.bodies[0]["model"]
        held = proxy.held("holding")
        assert held >= 1000 * (DEAR if model == "gate-dear" else CHEAP)[1]
        assert (held > 12_000_000) == (model == "gate-dear")
    finally:
        upstream.release.set()
        stream.close()
    assert proxy.calm("holding", 1) > 0


def test_deployments_of_one_model_are_told_apart(proxy: Proxy, upstream: Upstream) -> None:
    """The group has the name of its model, and only the prices of its deployments differ."""
    upstream.script["gate-twin"].extend(["hang-stream"] * 12)
    streams = [proxy.chat(f"twin-{number}", "gate-twin", stream=True) for number in range(12)]
    try:
        held = []
        for number, stream in enumerate(streams):
            next(stream)
            held.append(proxy.held(f"twin-{number}"))
        assert len(set(held)) == 2
        assert min(held) < 1000 * DEAR[1] <= max(held)
    finally:
        upstream.release.set()
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("model", ["nick", "wild/gate-chat"])
def test_aliases_and_wildcards_are_priced(proxy: Proxy, upstream: Upstream, model: str) -> None:
    user = model.replace("/", "-")
    proxy.chat(user, model)
    assert upstream.bodies[0]["model"] == "gate-chat"
    assert proxy.calm(user, 1) == WORTH
    assert f"this {model} call may cost $1.25" in _refused(proxy, user, model, max_tokens=100_000)
    assert upstream.requests == 1


def test_a_group_without_a_price_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    assert "no price is known for 'unpriced'" in _refused(proxy, "unsure", "unpriced")
    assert upstream.requests == 0


def test_a_deployment_without_a_price_is_refused_when_it_is_chosen(proxy: Proxy, upstream: Upstream) -> None:
    """The group's other deployment has a price, and is chosen in turn."""
    outcomes = set()
    for number in range(20):
        try:
            proxy.chat(f"half-{number}", "half-priced")
            outcomes.add("served")
            assert proxy.calm(f"half-{number}", 1) == WORTH
        except openai.UnprocessableEntityError as refused:
            outcomes.add("refused")
            assert "no price is known for 'half-priced'" in str(refused)
            assert proxy.calm(f"half-{number}") == 0
    assert "served" in outcomes
    assert set(upstream.served) == {"gate-chat"}


def test_a_retry_is_an_attempt_of_its_own(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-chat"].extend([500, 500])
    proxy.chat("patient")
    assert upstream.requests == 3
    assert proxy.calm("patient", 1) == WORTH
    assert proxy.usage("patient").calls == 1


def test_a_fallback_is_charged_at_its_own_price(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-failing"].extend([500] * 10)
    proxy.chat("falling", "failing")
    assert upstream.served == ["gate-spare"]
    assert proxy.calm("falling", 1) == CHEAP_WORTH
    assert proxy.costs("falling") == {"gate-spare": CHEAP_WORTH / 1e9}


def test_a_lost_attempt_is_charged_its_input_and_the_next_its_own(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-dear"].append("cut")
    upstream.script["gate-cheap"].append("cut")
    proxy.chat("unlucky", "mixed")
    spent = proxy.calm("unlucky", 2)
    served = DEAR_WORTH if upstream.served == ["gate-dear"] else CHEAP_WORTH
    assert 0 < spent - served < 50 * DEAR[0]


def test_a_deployment_that_is_not_reached_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    proxy.chat("redirected", "away")
    assert proxy.calm("redirected", 1) == WORTH
    assert proxy.usage("redirected").calls == 1


def test_a_failed_request_leaves_nothing_behind(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-chat"].extend([500, 500, 500])
    with pytest.raises(openai.InternalServerError):
        proxy.chat("failed")
    assert upstream.requests == 3
    assert proxy.calm("failed") == 0


def test_a_refusal_is_not_tried_again_and_counts_for_nothing(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(5):
        _refused(proxy, "insistent", "chat", max_tokens=100_000)
    assert proxy.usage("insistent").refusals == 5
    assert upstream.requests == 0


def test_embeddings(proxy: Proxy, upstream: Upstream) -> None:
    client = proxy.client("sk-user-embedding")
    for _ in range(4):
        client.embeddings.create(model="embed", input=[1] * 1000, encoding_format="float")
    assert proxy.calm("embedding", 4) == 4 * WORTH
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(model="embed", input=[1] * 1000, encoding_format="float")
    assert upstream.requests == 4


def test_text_completions(proxy: Proxy, upstream: Upstream) -> None:
    client = proxy.client("sk-user-texting")
    client.completions.create(model="text", prompt="x", max_tokens=1000)
    assert proxy.calm("texting", 1) == WORTH
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="text", prompt="x", max_tokens=100_000)
    assert upstream.requests == 1


def test_one_request_to_several_models_pays_for_each(proxy: Proxy, upstream: Upstream) -> None:
    # Models of the cost map: with own prices LiteLLM may price one as another, see "Charged more than was billed" in
    # docs/guarantees.md.
    body = {"model": "mapped,mapped, mapped-cheap", "messages": MESSAGES, "max_tokens": 1000}
    answer = proxy.post("sk-user-several", "/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()) == 3
    assert proxy.calm("several", 3) == 2 * 12_500_000 + 750_000


def test_one_request_to_several_models_is_refused_whole(proxy: Proxy, upstream: Upstream) -> None:
    body = {"model": "chat,spare", "messages": MESSAGES, "max_tokens": 100_000}
    answer = proxy.post("sk-user-several-more", "/v1/chat/completions", body)
    assert answer.status_code == 422
    assert upstream.requests == 0
