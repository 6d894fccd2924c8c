"""Prices that a call or its deployment gives: every field, in every kind of answer, as LiteLLM's own calculator uses
it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm.llms.base_llm.ocr.transformation import OCRResponse
from litellm.llms.base_llm.search.transformation import SearchResponse
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.rerank import RerankResponse
from litellm.types.utils import CustomPricingLiteLLMParams, ModelResponseStream
from litellm.types.videos.main import VideoObject

from litellm_budget_plugin.pricing import Cost, Request, cost_of_chunks, cost_of_raw, cost_of_response

CLAUDE = "claude-sonnet-4-5"
READ, HITS, FIVE_MINUTES, ONE_HOUR, HEARD, SEEN = 300_000, 40_000, 20_000, 10_000, 900, 700
WROTE, THOUGHT, SPOKEN, DRAWN = 5_000, 1_000, 300, 200
# A usage in LiteLLM's form with some of every kind of token.
USAGE: dict[str, Any] = {
    "prompt_tokens": READ,
    "completion_tokens": WROTE,
    "total_tokens": READ + WROTE,
    "prompt_tokens_details": {
        "cached_tokens": HITS,
        "cache_creation_tokens": FIVE_MINUTES + ONE_HOUR,
        "cache_creation_token_details": {
            "ephemeral_5m_input_tokens": FIVE_MINUTES,
            "ephemeral_1h_input_tokens": ONE_HOUR,
        },
        "audio_tokens": HEARD,
        "image_tokens": SEEN,
    },
    "completion_tokens_details": {"reasoning_tokens": THOUGHT, "audio_tokens": SPOKEN, "image_tokens": DRAWN},
}
ANTHROPIC: dict[str, Any] = {
    "input_tokens": READ,
    "output_tokens": WROTE,
    "cache_read_input_tokens": HITS,
    "cache_creation_input_tokens": FIVE_MINUTES + ONE_HOUR,
    "cache_creation": {"ephemeral_5m_input_tokens": FIVE_MINUTES, "ephemeral_1h_input_tokens": ONE_HOUR},
}
RESPONSE: dict[str, Any] = {
    "input_tokens": READ,
    "input_tokens_details": {"cached_tokens": HITS, "audio_tokens": HEARD, "image_tokens": SEEN},
    "output_tokens": WROTE,
    "output_tokens_details": {"reasoning_tokens": THOUGHT},
    "total_tokens": READ + WROTE,
}
GOOGLE: dict[str, Any] = {
    "promptTokenCount": READ,
    "cachedContentTokenCount": HITS,
    "candidatesTokenCount": WROTE,
    "thoughtsTokenCount": THOUGHT,
    "totalTokenCount": READ + WROTE + THOUGHT,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": READ - HEARD},
        {"modality": "AUDIO", "tokenCount": HEARD},
    ],
}


def _chat(usage: dict[str, Any] = USAGE) -> litellm.ModelResponse:
    return litellm.ModelResponse(model="gpt-4o", usage=litellm.Usage(**usage))


def _chunks(*, finished: bool) -> list[ModelResponseStream]:
    reason = "stop" if finished else None
    choices = [{"index": 0, "delta": {"content": "a"}, "finish_reason": reason}]
    last = ModelResponseStream(model="gpt-4o", choices=choices)
    last.usage = litellm.Usage(**USAGE)
    return [ModelResponseStream(model="gpt-4o", choices=[{"index": 0, "delta": {"content": "b"}}]), last]


def _response() -> dict[str, Any]:
    return {
        "id": "1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE,
    }


def _message_events() -> list[bytes]:
    started = {key: value for key, value in ANTHROPIC.items() if key != "output_tokens"} | {"output_tokens": 1}
    events = [
        {"type": "message_start", "message": {"model": CLAUDE, "usage": started}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": WROTE}},
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _google() -> dict[str, Any]:
    candidates = [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]
    return {"modelVersion": "gemini-2.5-flash", "candidates": candidates, "usageMetadata": GOOGLE}


def _embedded() -> litellm.EmbeddingResponse:
    usage = litellm.Usage(**{**USAGE, "completion_tokens": 0, "completion_tokens_details": None, "total_tokens": READ})
    return litellm.EmbeddingResponse(model="text-embedding-3-small", data=[], usage=usage)


KINDS: dict[str, tuple[str, str, Callable[[Request], Cost], Callable[[], litellm.Usage]]] = {
    "chat": ("completion", "gpt-4o", lambda r: cost_of_response(r, _chat()), lambda: litellm.Usage(**USAGE)),
    "raw chat": (
        "completion",
        "gpt-4o",
        lambda r: cost_of_raw(r, json.dumps({"model": "gpt-4o", "usage": USAGE})),
        lambda: litellm.Usage(**USAGE),
    ),
    "stream": (
        "completion",
        "gpt-4o",
        lambda r: cost_of_chunks(r, _chunks(finished=True)),
        lambda: litellm.Usage(**USAGE),
    ),
    "dropped stream": (
        "completion",
        "gpt-4o",
        lambda r: cost_of_chunks(r, _chunks(finished=False)),
        lambda: litellm.Usage(**USAGE),
    ),
    "text": ("text_completion", "gpt-4o", lambda r: cost_of_response(r, _chat()), lambda: litellm.Usage(**USAGE)),
    "messages": (
        "messages",
        CLAUDE,
        lambda r: cost_of_response(r, {"type": "message", "model": CLAUDE, "usage": ANTHROPIC}),
        lambda: litellm.AnthropicConfig().calculate_usage(usage_object=ANTHROPIC, reasoning_content=None),
    ),
    "messages stream": (
        "messages",
        CLAUDE,
        lambda r: cost_of_chunks(r, _message_events()),
        lambda: litellm.AnthropicConfig().calculate_usage(usage_object=ANTHROPIC, reasoning_content=None),
    ),
    "responses": (
        "responses",
        "gpt-4o",
        lambda r: cost_of_response(r, ResponsesAPIResponse(**_response())),
        lambda: _from_responses(),
    ),
    "responses stream": (
        "responses",
        "gpt-4o",
        lambda r: cost_of_chunks(r, [{"type": "response.completed", "response": _response()}]),
        lambda: _from_responses(),
    ),
    "generate_content": (
        "generate_content",
        "gemini/gemini-2.5-flash",
        lambda r: cost_of_response(r, _google()),
        lambda: litellm.VertexGeminiConfig._calculate_usage(_google()),
    ),
    "generate_content stream": (
        "generate_content",
        "gemini/gemini-2.5-flash",
        lambda r: cost_of_chunks(r, [_google()]),
        lambda: litellm.VertexGeminiConfig._calculate_usage(_google()),
    ),
    "embedding": (
        "embedding",
        "text-embedding-3-small",
        lambda r: cost_of_response(r, _embedded()),
        lambda: _embedded().usage,
    ),
}


def _from_responses() -> litellm.Usage:
    return litellm.Usage(
        prompt_tokens=READ,
        completion_tokens=WROTE,
        total_tokens=READ + WROTE,
        prompt_tokens_details=RESPONSE["input_tokens_details"],
        completion_tokens_details=RESPONSE["output_tokens_details"],
    )


def _by_litellm(model: str, own: dict[str, Any], usage: litellm.Usage, tier: str | None) -> float:
    """Return LiteLLM's charge for a deployment that a Router has registered with the public prices, overridden by
    these.
    """
    stripped, provider, _, _ = litellm.get_llm_provider(model)
    public = dict(litellm.model_cost.get(model) or litellm.model_cost[stripped])
    name = f"registered {own} {tier}"
    litellm.model_cost[name] = {**public, "litellm_provider": provider, **own}
    cost: float = litellm.completion_cost(
        completion_response=litellm.ModelResponse(model=stripped, usage=usage),
        model=stripped,
        custom_llm_provider=provider,
        custom_pricing=True,
        router_model_id=name,
        optional_params={"service_tier": tier},
    )
    return cost


def _own_fields() -> list[str]:
    """Return every field of LiteLLM's that holds one number for tokens."""
    fields = set(CustomPricingLiteLLMParams.model_fields)
    fields |= {
        name for entry in litellm.model_cost.values() for name in entry if "cost_per" in name or "token_cost" in name
    }
    nested = ("search_context_cost_per_query", "google_maps_grounding_cost_per_query")
    timed = ("cost_per_second", "input_cost_per_second", "output_cost_per_second")
    return sorted(name for name in fields if "cost" in name and name not in nested and name not in timed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_own_price_counts_in_every_kind_of_answer(kind: str, cost_map: dict[str, Any]) -> None:
    family, model, charge, usage = KINDS[kind]
    told = set()
    for name in _own_fields():
        tier = next((tier for tier in ("priority", "flex") if tier in name), None)
        plain = _by_litellm(model, {}, usage(), tier)
        own = {name: 0.000_123}
        expected = _by_litellm(model, own, usage(), tier)
        given = {"model_info": own} if name not in CustomPricingLiteLLMParams.model_fields else own
        found = charge(Request(family, model, None, {"service_tier": tier, **given}))
        assert found.usd == round(expected * 1e9), name
        assert not found.estimated
        if expected != plain:
            told.add(name)
    # None of these prices may be lost. Without them this test would show nothing.
    assert len(told) >= {"embedding": 3}.get(family, 4), told
    assert any("cache_read" in name for name in told)
    assert any("priority" in name for name in told)


@pytest.mark.parametrize("kind", KINDS)
def test_tiers_count_as_well(kind: str, cost_map: dict[str, Any]) -> None:
    family, model, charge, usage = KINDS[kind]
    tiers = [
        {"range": [0, 128_000], "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
        {"range": [128_000, 1_000_000], "input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6},
    ]
    expected = _by_litellm(model, {"tiered_pricing": tiers}, usage(), None)
    assert charge(Request(family, model, None, {"tiered_pricing": tiers})).usd == round(expected * 1e9)


WRITTEN = {"input_tokens": 1000, "cache_creation_input_tokens": 2000, "output_tokens": 100}


def _written_events() -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": {"model": CLAUDE, "usage": {**WRITTEN, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
    ]


@pytest.mark.parametrize("model", [CLAUDE, "anthropic/unheard"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("given", ["call", "deployment"])
def test_a_written_cache_has_its_own_price(model: str, streamed: bool, given: str) -> None:
    own = {
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 15e-6,
        "cache_creation_input_token_cost": 12e-6,
        "cache_read_input_token_cost": 1e-6,
    }
    params = own if given == "call" else {"litellm_metadata": {"model_info": {"id": "lost", **own}}}
    request = Request("messages", model, None, params)
    whole = {"type": "message", "model": CLAUDE, "usage": WRITTEN}
    found = cost_of_chunks(request, _written_events()) if streamed else cost_of_response(request, whole)
    assert found.usd == 1000 * 3000 + 2000 * 12_000 + 100 * 15_000


def test_a_long_prompt_an_hour_and_sound_have_their_own_prices() -> None:
    own = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    long = {**own, "input_cost_per_token_above_200k_tokens": 5e-6, "output_cost_per_token_above_200k_tokens": 7e-6}
    usage = {"prompt_tokens": 250_000, "completion_tokens": 10, "total_tokens": 250_010}
    found = cost_of_response(Request("completion", "openai/unheard", None, long), _chat(usage))
    assert found.usd == 250_000 * 5000 + 10 * 7000
    hour = {**own, "cache_creation_input_token_cost": 2e-6, "cache_creation_input_token_cost_above_1hr": 9e-6}
    message = {"input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 1}
    message["cache_creation"] = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100}
    found = cost_of_response(Request("messages", "anthropic/unheard", None, hour), {"model": "u", "usage": message})
    assert found.usd == 10 * 1000 + 100 * 9000 + 2000
    sound = {**own, "input_cost_per_audio_token": 50e-6}
    usage = {**usage, "prompt_tokens": 100, "prompt_tokens_details": {"audio_tokens": 60}, "total_tokens": 110}
    found = cost_of_response(Request("completion", "openai/unheard", None, sound), _chat(usage))
    assert found.usd == 40 * 1000 + 60 * 50_000 + 10 * 2000


def test_what_own_prices_do_not_name_keeps_the_public_price() -> None:
    # As in LiteLLM, which registers them over the public entry: gpt-4o reads from its cache at $1.25 a million.
    request = Request("completion", "gpt-4o", None, {"input_cost_per_token": 5e-6, "output_cost_per_token": 20e-6})
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    usage["prompt_tokens_details"] = {"cached_tokens": 60}
    assert cost_of_response(request, _chat(usage)).usd == 40 * 5000 + 60 * 1250 + 10 * 20_000


def test_a_deployment_of_a_router_stands_alone(cost_map: dict[str, Any]) -> None:
    # A Router registers what a deployment inherits. Public prices do not apply here.
    own = {"input_cost_per_token": 5e-6, "output_cost_per_token": 20e-6, "litellm_provider": "openai"}
    litellm.register_model({"deployment": own})
    request = Request("completion", "gpt-4o", None, {"metadata": {"model_info": {"id": "deployment", **own}}})
    usage = litellm.Usage(prompt_tokens=100, completion_tokens=10, prompt_tokens_details={"cached_tokens": 60})
    expected = litellm.completion_cost(
        litellm.ModelResponse(model="gpt-4o", usage=usage),
        model="gpt-4o",
        custom_llm_provider="openai",
        custom_pricing=True,
        router_model_id="deployment",
    )
    assert cost_of_response(request, litellm.ModelResponse(model="gpt-4o", usage=usage)).usd == round(expected * 1e9)


def test_a_free_call_is_free_whatever_else_the_public_entry_charges() -> None:
    request = Request("completion", "gpt-4o", None, {"input_cost_per_token": 0, "output_cost_per_token": 0})
    assert cost_of_response(request, _chat()).usd == 0


def test_own_prices_are_charged_when_the_cost_map_was_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = {"id": "deployed", "input_cost_per_token": 1e-3, "output_cost_per_token": 1e-3}
    monkeypatch.setattr(litellm, "model_cost", {"gpt-4o": dict(litellm.model_cost["gpt-4o"])})
    request = Request("completion", "gpt-4o", None, {"metadata": {"model_info": own}})
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    answer = litellm.ModelResponse(model="replaced-map", usage=litellm.Usage(**usage))
    public = 100 * 2.5e-6 + 10 * 10e-6
    for _ in range(2):
        assert cost_of_response(request, answer, public).usd == 110 * 1_000_000
    warnings = [record.getMessage() for record in caplog.records if "replaced-map" in record.getMessage()]
    assert len(warnings) == 1
    # The map of the application holds what it held before, and the names under which prices were asked for.
    assert set(litellm.model_cost) - {"gpt-4o"} == {name for name in litellm.model_cost if "#" in name}


def test_the_names_that_prices_are_asked_under_do_not_pile_up(cost_map: dict[str, Any]) -> None:
    from litellm_budget_plugin.pricing import litellm_cost

    for number in range(litellm_cost._MOST_PRIVATE + 50):
        own = {"input_cost_per_token": 1e-6 + number * 1e-9, "output_cost_per_token": 0.0}
        usage = {"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000}
        found = litellm_cost.token_cost(_key(Request("completion", "openai/unheard", None, own)), usage)
        assert found == 1_000_000 + number * 1000
    assert sum("#" in name for name in litellm.model_cost) <= litellm_cost._MOST_PRIVATE


def _key(request: Request) -> Any:
    from litellm_budget_plugin.pricing.cost_map import price_key

    return price_key(request)


def _transcript() -> litellm.TranscriptionResponse:
    made = litellm.TranscriptionResponse(text="x")
    made.duration = 60.0
    return made


PICTURES = {"created": 1, "data": [{"url": "a"}, {"url": "b"}]}
DRAWN_BY_TOKENS = {
    "created": 1,
    "data": [{"url": "a"}],
    "usage": {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 544,
        "total_tokens": 594,
    },
}
RERANKED = RerankResponse(id="1", results=[], meta={"billed_units": {"search_units": 3}})
PAGES = OCRResponse(model="mistral-ocr-latest", pages=[], usage_info={"pages_processed": 5})
FILM = {"id": "v", "object": "video", "status": "queued", "seconds": "8", "usage": {"duration_seconds": 8.0}}
TIERS = [{"max_results_range": [0, 100], "input_cost_per_query": 0.2}]
UNITS = [
    ("image_generation", "openai/dall-e-3", PICTURES, {"output_cost_per_image": 0.5}, 1.0),
    ("image_generation", "openai/dall-e-3", PICTURES, {"input_cost_per_image": 0.5}, 1.0),
    ("image_generation", "openai/mine", PICTURES, {"output_cost_per_image": 0.5}, 1.0),
    ("image_generation", "openai/mine", PICTURES, {"input_cost_per_pixel": 1e-7}, 2 * 1024 * 1024 * 1e-7),
    (
        "image_generation",
        "openai/gpt-image-1",
        DRAWN_BY_TOKENS,
        {"input_cost_per_token": 1e-3, "output_cost_per_image_token": 2e-3},
        0.05 + 1.088,
    ),
    ("image_edit", "openai/mine", PICTURES, {"output_cost_per_image": 0.5}, 1.0),
    ("image_generation", "vertex_ai/imagen-4.0-generate-001", PICTURES, {"output_cost_per_image": 0.5}, 1.0),
    # Ten characters that are not spaces.
    ("speech", "openai/tts-1", {"anything": 1}, {"input_cost_per_character": 0.01}, 0.1),
    ("transcription", "openai/whisper-1", _transcript(), {"input_cost_per_second": 0.01}, 0.6),
    ("transcription", "openai/whisper-1", _transcript(), {"output_cost_per_second": 0.01}, 0.6),
    ("rerank", "cohere/rerank-v3.5", RERANKED, {"input_cost_per_query": 0.1}, 0.3),
    ("ocr", "mistral/mistral-ocr-latest", PAGES, {"ocr_cost_per_page": 0.1}, 0.5),
    ("search", "tavily/search", SearchResponse(results=[]), {"input_cost_per_query": 0.1}, 0.1),
    ("search", "tavily/search", SearchResponse(results=[]), {"tiered_pricing": TIERS}, 0.2),
    ("video_generation", "openai/sora-2", VideoObject(**FILM), {"output_cost_per_second": 0.5}, 4.0),
    ("video_generation", "openai/sora-2", VideoObject(**FILM), {"output_cost_per_video_per_second": 0.5}, 4.0),
]


@pytest.mark.parametrize("given", ["call", "deployment"])
@pytest.mark.parametrize(("family", "model", "answer", "own", "cost"), UNITS)
def test_units_have_own_prices_too(
    family: str, model: str, answer: Any, own: dict[str, Any], cost: float, given: str
) -> None:
    asked = {"prompt": "a cat", "input": "Hello there", "n": 2, "size": "1024x1024", "query": "q"}
    prices = own if given == "call" else {"metadata": {"model_info": {"id": "lost", **own}}}
    found = cost_of_response(Request(family, model, None, {**asked, **prices}), answer)
    assert (found.usd, found.estimated) == (round(cost * 1e9), False)
