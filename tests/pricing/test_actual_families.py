"""The actual costs of calls of the other families, in numbers calculated by hand."""

from __future__ import annotations

import json
from typing import Any

import httpx
import litellm
import pytest
from litellm.llms.base_llm.ocr.transformation import OCRResponse
from litellm.llms.base_llm.search.transformation import SearchResponse
from litellm.types.llms.openai import HttpxBinaryResponseContent, OpenAIModerationResponse, ResponsesAPIResponse
from litellm.types.rerank import RerankResponse
from litellm.types.videos.main import VideoObject

from litellm_budget_plugin.pricing import Request, cost_of_chunks, cost_of_output, cost_of_raw, cost_of_response
from litellm_budget_plugin.pricing.tokens import count

GPT = ("gpt-4o", {"input": "Hello there", "max_output_tokens": 100})
CLAUDE = ("claude-sonnet-4-5", {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 100})
GEMINI = ("gemini/gemini-2.5-flash", {"contents": "Hello there"})


def _request(call_type: str, model: str, **params: Any) -> Request:
    return Request(call_type, model, None, params)


RESPONSES = _request("responses", GPT[0], **GPT[1])
MESSAGES = _request("messages", CLAUDE[0], **CLAUDE[1])
GOOGLE = _request("generate_content", GEMINI[0], **GEMINI[1])

RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4o-2024-08-06",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 110,
    },
}
# gpt-4o: $2.50, cached $1.25, and $10 a million tokens. The 100 tokens include the cached ones.
RESPONSE_COST = 40 * 2500 + 60 * 1250 + 10 * 10_000

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 40,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 10,
    },
}
# $3 and $15 a million, $0.30 read, $3.75 written for five minutes and $6 for an hour. The 40 do not include cached
# ones.
MESSAGE_COST = 40 * 3000 + 60 * 300 + 10 * 3750 + 20 * 6000 + 10 * 15_000

GENERATED = {
    "modelVersion": "gemini-2.5-flash",
    "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 115,
    },
}
# $0.30, cached $0.03, and $2.50 a million. Thoughts are output, too.
GENERATED_COST = 40 * 300 + 60 * 30 + 15 * 2500

IMAGES = {
    "created": 1,
    "data": [{"url": "a"}, {"url": "b"}],
    "usage": {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
        "output_tokens": 544,
        "total_tokens": 594,
    },
}
# gpt-image-1: $5 a million tokens of text and $40 of images.
IMAGES_COST = 50 * 5000 + 544 * 40_000


class _Object:
    """An answer with fields, as Google's SDK has them."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def _binary() -> HttpxBinaryResponseContent:
    return HttpxBinaryResponseContent(httpx.Response(200, content=b"sound"))


def _transcript(seconds: float) -> litellm.TranscriptionResponse:
    made = litellm.TranscriptionResponse(text="hello")
    made._hidden_params = {"audio_transcription_duration": seconds}  # the place where LiteLLM puts it
    return made


RERANKED = {"id": "1", "results": [], "meta": {"billed_units": {"search_units": 3}}}
READ = {"model": "mistral-ocr-latest", "pages": [], "usage_info": {"pages_processed": 5}}
FILMED = {"id": "v", "object": "video", "status": "queued", "seconds": "8", "usage": {"duration_seconds": 8.0}}
MODERATED = {"id": "m", "model": "omni-moderation-latest", "results": []}

ANSWERS = [
    (RESPONSES, ResponsesAPIResponse(**RESPONSE), RESPONSE_COST),
    (RESPONSES, RESPONSE, RESPONSE_COST),
    (MESSAGES, MESSAGE, MESSAGE_COST),
    (MESSAGES, _Object(**MESSAGE), MESSAGE_COST),
    (GOOGLE, GENERATED, GENERATED_COST),
    (
        GOOGLE,
        _Object(
            model_version="gemini-2.5-flash",
            candidates=[],
            usage_metadata={
                "prompt_token_count": 100,
                "cached_content_token_count": 60,
                "candidates_token_count": 10,
                "thoughts_token_count": 5,
            },
        ),
        GENERATED_COST,
    ),
    (_request("image_generation", "gpt-image-1", prompt="a cat", n=2), litellm.ImageResponse(**IMAGES), IMAGES_COST),
    (_request("image_generation", "gpt-image-1", prompt="a cat", n=2), IMAGES, IMAGES_COST),
    # $0.05 each, by the images in the answer.
    (_request("image_edit", "black_forest_labs/flux-pro-1.0-fill", image=b"x"), {"created": 1, "data": [{"url": "a"}] * 2}, 100_000_000),
    # 1024 x 1792 pixels. The price of one differs between versions of LiteLLM.
    (
        _request("image_generation", "azure/dall-e-3", prompt="a cat", size="1024x1792", quality="hd"),
        {"created": 1, "data": [{"url": "a"}]},
        round(1024 * 1792 * 1e9 * litellm.model_cost["azure/hd/1024-x-1792/dall-e-3"]["input_cost_per_pixel"]),
    ),
    # 10 characters that are not spaces, at $15 a million.
    (_request("speech", "tts-1", input="Hello there", voice="alloy"), _binary(), 10 * 15_000),
    (_request("speech", "tts-1", input="Hello there", voice="alloy"), {"anything": 1}, 10 * 15_000),
    # A minute at $0.0001 a second.
    (_request("transcription", "whisper-1", file=b"x"), _transcript(60.0), 6_000_000),
    (_request("transcription", "whisper-1", file=b"x"), {"text": "hello", "duration": 60.0}, 6_000_000),
    (_request("transcription", "whisper-1", file=b"x"), {"text": "", "usage": {"type": "duration", "seconds": 60}}, 6_000_000),
    # $2.50 a million input tokens, $10 output.
    (
        _request("transcription", "gpt-4o-transcribe", file=b"x"),
        {
            "text": "hello",
            "usage": {
                "type": "tokens",
                "input_tokens": 100,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 100},
                "output_tokens": 10,
                "total_tokens": 110,
            },
        },
        100 * 2500 + 10 * 10_000,
    ),
    (_request("rerank", "cohere/rerank-v3.5", query="q", documents=["a"]), RerankResponse(**RERANKED), 6_000_000),
    (_request("rerank", "cohere/rerank-v3.5", query="q", documents=["a"]), RERANKED, 6_000_000),
    (
        _request("rerank", "voyage/rerank-2.5", query="q", documents=["a"]),
        {"id": "1", "results": [], "meta": {"billed_units": {"total_tokens": 1000}}},
        1000 * 50,
    ),
    (_request("ocr", "mistral/mistral-ocr-latest", document={}), OCRResponse(**READ), 5 * 4_000_000),
    (_request("ocr", "mistral/mistral-ocr-latest", document={}), READ, 5 * 4_000_000),
    (
        _request("ocr", "reducto/parse-v3", document={}),
        {"pages": [], "usage_info": {"pages_processed": 1, "credits": 2.0}},
        2 * 15_000_000,
    ),
    (_request("search", "tavily/search", query=["a", "b"]), SearchResponse(results=[]), 16_000_000),
    (_request("search", "", search_provider="tavily", query="a"), {"results": []}, 8_000_000),
    (_request("search", "exa_ai/search", query="a", max_results=30), {"results": []}, 25_000_000),
    (_request("video_generation", "openai/sora-2", prompt="p"), VideoObject(**FILMED), 800_000_000),
    (_request("video_generation", "openai/sora-2", prompt="p"), FILMED, 800_000_000),
    (_request("moderation", "omni-moderation-latest", input="x"), OpenAIModerationResponse(**MODERATED), 0),
    (_request("moderation", "omni-moderation-latest", input="x"), MODERATED, 0),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "answer", "cost"), ANSWERS, ids=lambda value: getattr(value, "call_type", ""))
def test_an_answer_is_charged_what_it_contains(request_: Request, answer: Any, cost: int) -> None:
    found = cost_of_response(request_, answer, 0.0)
    assert (found.usd, found.estimated) == (cost, False)


@pytest.mark.parametrize(("request_", "answer", "cost"), ANSWERS, ids=lambda value: getattr(value, "call_type", ""))
def test_litellms_own_figure_comes_first(request_: Request, answer: Any, cost: int) -> None:
    assert cost_of_response(request_, answer, 0.5).usd == 500_000_000


@pytest.mark.parametrize(
    ("request_", "answer", "cost"),
    [case for case in ANSWERS if isinstance(case[1], dict)],
    ids=lambda value: getattr(value, "call_type", ""),
)
def test_a_raw_answer_costs_what_the_answer_costs(request_: Request, answer: Any, cost: int) -> None:
    assert cost_of_raw(request_, json.dumps(answer)).usd == cost
    assert cost_of_raw(request_, answer).usd == cost


def test_tokens_are_told_with_the_cached_ones() -> None:
    for request, answer, tokens in (
        (RESPONSES, RESPONSE, (100, 10)),
        (MESSAGES, MESSAGE, (130, 10)),
        (GOOGLE, GENERATED, (100, 15)),
    ):
        found = cost_of_response(request, answer)
        assert (found.input_tokens, found.output_tokens) == tokens


def test_the_same_numbers_mean_another_sum_in_another_family() -> None:
    usage = {"input_tokens": 100, "cache_read_input_tokens": 60, "output_tokens": 10}
    assert cost_of_response(MESSAGES, {"model": "claude-sonnet-4-5", "usage": usage}).input_tokens == 160
    assert cost_of_response(RESPONSES, {"model": "gpt-4o", "usage": usage}).input_tokens == 100


def test_searches_of_an_answer_are_charged() -> None:
    searched = {**MESSAGE, "usage": {**MESSAGE["usage"], "server_tool_use": {"web_search_requests": 2}}}  # type: ignore[dict-item]
    assert cost_of_response(MESSAGES, searched).usd == MESSAGE_COST + 2 * 10_000_000
    grounded = {**GENERATED, "candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}]}
    assert cost_of_response(GOOGLE, grounded).usd == GENERATED_COST + 35_000_000


def test_a_cache_hit_costs_nothing_in_any_family() -> None:
    answer = ResponsesAPIResponse(**RESPONSE)
    answer._hidden_params = {"cache_hit": True}
    assert cost_of_response(RESPONSES, answer, 0.0).usd == 0


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (RESPONSES, {"model": "gpt-4o", "output": [{"type": "message", "content": [{"text": "Good morning"}]}]}),
        (MESSAGES, {"content": [{"type": "text", "text": "Good morning"}]}),
        (GOOGLE, {"candidates": [{"content": {"parts": [{"text": "Good morning"}]}}]}),
    ],
    ids=["responses", "messages", "google"],
)
def test_without_usage_the_text_is_counted(request_: Request, answer: dict[str, Any]) -> None:
    found = cost_of_response(request_, answer)
    assert found.estimated
    assert found.output_tokens == count("Good morning")
    assert found.input_tokens > 0
    assert found.usd


def test_a_price_of_the_callers_own_is_charged() -> None:
    request = _request("video_generation", "openai/own", prompt="p", output_cost_per_second=0.25)
    assert cost_of_response(request, FILMED).usd == 2_000_000_000
    request = _request("rerank", "cohere/own", query="q", documents=[], input_cost_per_query=0.5)
    assert cost_of_response(request, RERANKED).usd == 1_500_000_000
    request = _request("ocr", "mistral/own", document={}, ocr_cost_per_page=0.5)
    assert cost_of_response(request, READ).usd == 2_500_000_000
    request = _request("transcription", "openai/own", file=b"", input_cost_per_second=0.5)
    assert cost_of_response(request, {"text": "", "duration": 4.0}).usd == 2_000_000_000
    request = _request("image_generation", "openai/own", prompt="p", output_cost_per_image=0.5)
    assert cost_of_response(request, {"created": 1, "data": [{}, {}, {}]}).usd == 1_500_000_000


@pytest.mark.parametrize(
    "request_",
    [
        _request(family, "openai/unheard", input="x", prompt="x", file=b"x", query="x", documents=[], document={})
        for family in ("responses", "image_generation", "speech", "transcription", "rerank", "ocr", "video_generation")
    ],
    ids=lambda request: request.call_type,
)
def test_no_price_is_no_cost(request_: Request) -> None:
    assert cost_of_response(request_, {"usage": {"input_tokens": 1, "output_tokens": 1}}, 0.0).usd is None
    assert cost_of_output(request_, "").usd is None


LOST = [
    (_request("image_generation", "recraft/recraftv3", prompt="a cat", n=3), 3 * 40_000_000),
    (_request("speech", "tts-1", input="Hello", voice="alloy"), 5 * 15_000),
    (_request("rerank", "cohere/rerank-v3.5", query="q", documents=["a"]), 2_000_000),
    (_request("search", "tavily/search", query="q"), 8_000_000),
    (_request("ocr", "mistral/mistral-ocr-latest", document={}), 4_000_000),
    (_request("video_generation", "openai/sora-2", prompt="p", seconds="8"), 800_000_000),
    (_request("transcription", "whisper-1", file=b"\0" * 160_000), 1_000_000),
]


@pytest.mark.parametrize(("request_", "cost"), LOST, ids=lambda value: getattr(value, "call_type", ""))
def test_what_is_billed_as_a_whole_is_charged_as_a_whole_when_its_answer_is_lost(request_: Request, cost: int) -> None:
    for found in (cost_of_output(request_, ""), cost_of_chunks(request_, []), cost_of_raw(request_, "garbage")):
        assert (found.usd, found.estimated) == (cost, True)
    assert cost_of_chunks(request_, [b"some", b"sound"]).usd == cost


def test_a_stream_of_images_is_charged_by_the_usage_of_its_last_event() -> None:
    request = _request("image_generation", "gpt-image-1", prompt="a cat", n=2)
    part = {"type": "image_generation.partial_image", "b64_json": "AAAA"}
    last = {"type": "image_generation.completed", "b64_json": "AAAA", "usage": IMAGES["usage"]}
    assert cost_of_chunks(request, [part, last]).usd == IMAGES_COST
    assert cost_of_chunks(request, [part]).estimated
