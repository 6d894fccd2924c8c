"""No answer within the stated limits costs more than the estimate."""

from __future__ import annotations

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.types.utils import CompletionTokensDetailsWrapper, PromptTokensDetailsWrapper, Usage

from litellm_budget_plugin.pricing import Request, estimate
from litellm_budget_plugin.pricing.cost_map import ASKS_NETWORK
from tests.generated import examples
from tests.pricing.fabricated import writes_caches

CALLS = {"chat": "completion", "completion": "text_completion", "embedding": "embedding"}
MODELS = sorted(
    name
    for name, entry in litellm.model_cost.items()
    if entry.get("mode") in CALLS and entry.get("litellm_provider") not in ASKS_NETWORK
)


def _request(model: str, text: str, max_tokens: int, n: int = 1, *, asks: bool = False) -> Request:
    call = CALLS[litellm.model_cost[model]["mode"]]
    words = {"completion": {"messages": [{"role": "user", "content": text}]}, "text_completion": {"prompt": text}}
    params: dict[str, object] = dict(words.get(call, {"input": text}))
    if asks:
        params["cache_control"] = {"type": "ephemeral"}
    if call != "embedding":
        params |= {"max_tokens": max_tokens, "n": n}
    return Request(call, model, None, params)


def _charged(model: str, call_type: str, usage: Usage) -> float | None:
    answer = litellm.ModelResponse(model=model, usage=usage)
    # Names of vanished providers (anyscale) are in the map, but completion_cost cannot price them.
    try:
        return float(litellm.completion_cost(answer, model=model, call_type=call_type))
    except Exception:  # LiteLLM raises plain Exception for what it cannot price
        return None


@given(st.data())
@examples(400)
def test_litellms_own_cost_of_an_answer_within_the_limits_is_never_above_the_estimate(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    size = data.draw(st.sampled_from([10, 3_000, 130_000, 210_000, 280_000, 600_000]))
    limit, n = data.draw(st.integers(1, 20_000)), data.draw(st.integers(1, 3))
    asks = data.draw(st.booleans())
    request = _request(model, "x" * size, limit, n, asks=asks)
    found = estimate(request, output_allowance=1, unbounded_hold=0)
    read = data.draw(st.integers(1, size))
    wrote = 0 if request.call_type == "embedding" else data.draw(st.integers(0, limit * n))
    writes = asks or writes_caches(model)
    cached, written = data.draw(st.integers(0, read)), data.draw(st.integers(0, read if writes else 0))
    usage = Usage(
        prompt_tokens=read,
        completion_tokens=wrote,
        total_tokens=read + wrote,
        prompt_tokens_details=PromptTokensDetailsWrapper(
            cached_tokens=cached, cache_creation_tokens=min(written, read - cached)
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=data.draw(st.integers(0, wrote))),
    )
    charged = _charged(model, request.call_type, usage)
    if charged is not None and found.bounded:
        assert charged * 1e9 <= found.usd + 1e-3
    assert 0 <= found.floor <= found.usd
    assert found.floor_tokens <= found.tokens


def test_every_priced_model_of_the_map_holds_at_its_very_limit() -> None:
    over = []
    compared = 0
    for model in MODELS[::7]:
        request = _request(model, "x" * 250_000, 1000)
        found = estimate(request, output_allowance=1, unbounded_hold=0)
        wrote = 0 if request.call_type == "embedding" else 1000
        usage = Usage(prompt_tokens=250_000, completion_tokens=wrote, total_tokens=250_000 + wrote)
        charged = _charged(model, request.call_type, usage)
        if charged is not None and found.priced:
            compared += 1
            if charged * 1e9 > found.usd + 1e-3:
                over.append((model, charged, found.usd))
    assert over == []
    assert compared > 100


@pytest.mark.parametrize("size", [199_000, 201_000])
def test_a_prompt_that_may_cross_a_threshold_is_priced_at_the_dearer_tier(
    size: int, cost_map: dict[str, object]
) -> None:
    cost_map["openai/tiers"] = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1e-6,
        "input_cost_per_token_above_200k_tokens": 2e-6,
        "output_cost_per_token": 0.0,
    }
    found = estimate(_chat("openai/tiers", "x" * size, max_tokens=1), output_allowance=1, unbounded_hold=0)
    assert found.usd == (found.tokens - 1) * (1000 if size < 200_000 else 2000)


def _chat(model: str, text: object, **params: object) -> Request:
    return Request("completion", model, None, {"messages": [{"role": "user", "content": text}], **params})


@pytest.mark.parametrize(
    ("params", "rate"),
    [
        ({}, 3),
        ({"service_tier": "priority"}, 7),
        ({"service_tier": "flex"}, 3),
        ({"service_tier": "auto"}, 7),
        ({"extra_body": {"service_tier": "priority"}}, 7),
    ],
)
def test_a_service_tier_is_priced_at_the_dearer_of_what_may_be_served(
    params: dict[str, object], rate: int, cost_map: dict[str, object]
) -> None:
    cost_map["openai/served"] = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 0.0,
        "output_cost_per_token": 3e-6,
        "output_cost_per_token_priority": 7e-6,
        "output_cost_per_token_flex": 1e-6,
    }
    found = estimate(_chat("openai/served", "hi", max_tokens=10, **params), output_allowance=1, unbounded_hold=0)
    assert found.usd == 10 * rate * 1000


def test_one_hour_cache_prices_count_only_where_a_cache_is_asked_for(cost_map: dict[str, object]) -> None:
    cost_map["openai/caches"] = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1e-6,
        "cache_creation_input_token_cost": 2e-6,
        "cache_creation_input_token_cost_above_1hr": 4e-6,
        "output_cost_per_token": 0.0,
    }
    plain = estimate(
        _chat("openai/caches", [{"type": "text", "text": "hello"}], max_tokens=1), output_allowance=1, unbounded_hold=0
    )
    part = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    cached = estimate(_chat("openai/caches", [part], max_tokens=1), output_allowance=1, unbounded_hold=0)
    assert (plain.usd, cached.usd) == ((plain.tokens - 1) * 2000, (cached.tokens - 1) * 4000)


def test_claude_writes_a_cache_only_when_it_is_asked_to() -> None:
    price = litellm.model_cost["claude-sonnet-4-5"]
    plain = estimate(_chat("claude-sonnet-4-5", "hello", max_tokens=1), output_allowance=1, unbounded_hold=0)
    rates = (price["input_cost_per_token"], price["cache_creation_input_token_cost_above_1hr"])
    asked = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    cached = estimate(_chat("claude-sonnet-4-5", "hello", max_tokens=1, **asked), output_allowance=1, unbounded_hold=0)
    written = price["output_cost_per_token"]
    for found, rate in zip((plain, cached), rates):
        assert found.usd == round(((found.tokens - 1) * rate + written) * 1e9)


def test_reasoning_tokens_are_priced_at_their_own_rate(cost_map: dict[str, object]) -> None:
    entry = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 1e-6}
    cost_map["openai/reasons"] = {**entry, "output_cost_per_reasoning_token": 5e-6}
    assert estimate(_chat("openai/reasons", "hi", max_tokens=10), output_allowance=1, unbounded_hold=0).usd == 10 * 5000


def test_a_margin_raises_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    request = _chat("gpt-4o", "hello", max_tokens=100)
    before = estimate(request, output_allowance=1, unbounded_hold=0).usd
    monkeypatch.setattr(litellm, "cost_margin_config", {"openai": {"percentage": 0.5, "fixed_amount": 0.001}})
    after = estimate(request, output_allowance=1, unbounded_hold=0).usd
    assert after == -(-before * 3 // 2) + 1_000_000


@pytest.mark.parametrize(
    ("params", "output"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 30}, 30),
        ({"max_tokens": 10, "n": 4}, 40),
        ({}, 77),
        ({"max_tokens": "many"}, 77),
        ({"max_tokens": -5}, 77),
        ({"max_tokens": None}, 77),
        ({"max_tokens": 10, "additional_drop_params": ["max_tokens"]}, 77),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, 6096),
    ],
)
def test_the_output_side_follows_the_stated_limit_else_the_allowance(params: dict[str, object], output: int) -> None:
    given_ = estimate(_chat("gpt-4o", "hello", **params), output_allowance=77, unbounded_hold=0)
    nothing = estimate(_chat("gpt-4o", "hello", max_tokens=1), output_allowance=77, unbounded_hold=0)
    assert given_.tokens - nothing.tokens == output - 1
    assert given_.bounded == (output < 77)


def test_text_completions_multiply_prompts_and_best_of_and_echo_the_prompt() -> None:
    def tokens(**params: object) -> int:
        request = Request("text_completion", "gpt-3.5-turbo-instruct", None, {"max_tokens": 10, **params})
        return estimate(request, output_allowance=1, unbounded_hold=0).tokens

    assert tokens(prompt=["aa", "bb"], best_of=3, n=2) - tokens(prompt=["aa", "bb"]) == 2 * 10 * 2
    assert tokens(prompt="aaaa", echo=True) - tokens(prompt="aaaa") == tokens(prompt="aaaa") - 10


def test_embeddings_count_token_ids_exactly_and_have_no_output() -> None:
    def found(value: object) -> int:
        return estimate(
            Request("embedding", "text-embedding-3-small", None, {"input": value}),
            output_allowance=99,
            unbounded_hold=0,
        ).tokens

    assert found([1, 2, 3]) == 3
    assert found([[1, 2, 3], [4]]) == 4
    assert found(["abc", "de"]) == found("abc") + found("de")
    assert estimate(
        Request("embedding", "text-embedding-3-small", None, {"input": "abc"}), output_allowance=99, unbounded_hold=0
    ).bounded


@pytest.mark.parametrize(
    "bounds", [["x", 5], [None, None], [float("nan"), 1], [[], {}], "0-5", 7, [True], [-5, 3], [10**30]]
)
@pytest.mark.parametrize("family", ["completion", "search"])
def test_a_tier_whose_range_cannot_be_read_may_be_any(family: str, bounds: object, cost_map: dict[str, object]) -> None:
    """Prices come from a file or from a caller, and an estimate never raises."""
    name = {"completion": "openai/odd", "search": "tavily/search"}[family]
    tiers = [
        {"range": bounds, "max_results_range": bounds, "input_cost_per_token": 2e-6, "input_cost_per_query": 2e-3},
        {"range": [0, 5], "max_results_range": [99, 100], "input_cost_per_token": 1e-6, "input_cost_per_query": 1e-3},
    ]
    cost_map[name] = {"litellm_provider": name.split("/")[0], "mode": "chat", "tiered_pricing": tiers}
    params: dict[str, object] = {"query": "x", "max_results": 3, "messages": [{"role": "user", "content": "hi"}]}
    found = estimate(Request(family, name, None, {**params, "max_tokens": 1}), output_allowance=1, unbounded_hold=0)
    assert found.priced
    assert found.usd >= 2_000
