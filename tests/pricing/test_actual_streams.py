"""Streams of the Responses, Messages and generateContent APIs: whole, cut, with and without usage, in any pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm.types.llms.openai import OutputTextDeltaEvent, ResponseCompletedEvent, ResponsesAPIResponse

from litellm_budget_plugin.pricing import (
    Request,
    cost_of_chunks,
    cost_of_output,
    cost_of_raw,
    cost_of_response,
)
from litellm_budget_plugin.pricing.tokens import count
from tests.pricing.fabricated import EVERY_FAMILY
from tests.pricing.test_actual_families import (
    GENERATED,
    GENERATED_COST,
    GOOGLE,
    MESSAGE,
    MESSAGE_COST,
    MESSAGES,
    RESPONSE,
    RESPONSE_COST,
    RESPONSES,
)

TEXT = ["Good ", "morning ", "to you"]


def _response_events() -> list[dict[str, Any]]:
    begun = {"type": "response.created", "response": {**RESPONSE, "usage": None}}
    texts = [{"type": "response.output_text.delta", "delta": text, "item_id": "1"} for text in TEXT]
    return [begun, *texts, {"type": "response.completed", "response": RESPONSE}]


def _message_events() -> list[dict[str, Any]]:
    usage: Any = MESSAGE["usage"]
    begun = {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**usage, "output_tokens": 1}}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    texts = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} for text in TEXT]
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 10}}
    return [begun, block, *texts, ended, {"type": "message_stop"}]


def _google_chunks() -> list[dict[str, Any]]:
    texts = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in TEXT]
    return [*texts, {**GENERATED, "candidates": [{"finishReason": "STOP"}]}]


STREAMS = [
    pytest.param(RESPONSES, _response_events(), RESPONSE_COST, id="responses"),
    pytest.param(MESSAGES, _message_events(), MESSAGE_COST, id="messages"),
    pytest.param(GOOGLE, _google_chunks(), GENERATED_COST, id="google"),
]


def _sse(events: list[dict[str, Any]]) -> bytes:
    lines = [f"event: {event.get('type')}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join(lines).encode()


@pytest.mark.parametrize(("request_", "events", "cost"), STREAMS)
def test_a_whole_stream_costs_what_its_usage_says(request_: Request, events: list[Any], cost: int) -> None:
    found = cost_of_chunks(request_, events)
    assert (found.usd, found.estimated) == (cost, False)


def test_the_model_that_answered_is_named() -> None:
    assert cost_of_chunks(RESPONSES, _response_events()).model == "gpt-4o-2024-08-06"
    assert cost_of_chunks(MESSAGES, _message_events()[:3]).model == "claude-sonnet-4-5"
    assert cost_of_chunks(GOOGLE, _google_chunks()).model == "gemini-2.5-flash"


@pytest.mark.parametrize(("request_", "events", "cost"), STREAMS)
@settings(deadline=None)
@given(data=st.data())
def test_bytes_may_be_cut_anywhere(request_: Request, events: list[Any], cost: int, data: st.DataObject) -> None:
    whole = _sse(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)])]
    assert cost_of_chunks(request_, pieces).usd == cost
    assert cost_of_chunks(request_, [piece.decode("utf-8", "replace") for piece in pieces]).usd == cost


@pytest.mark.parametrize(("request_", "events", "cost"), STREAMS)
def test_a_stream_cut_in_the_middle_is_charged_its_input_and_its_text(
    request_: Request, events: list[Any], cost: int
) -> None:
    several = events[: next(number for number, event in enumerate(events) if TEXT[1] in json.dumps(event)) + 1]
    received = count("".join(TEXT[:2]))
    for chunks in (several, [_sse(several)], [_sse(several)[:-1]]):
        found = cost_of_chunks(request_, chunks)
        assert (found.output_tokens, found.estimated) == (received, True)
        assert found.usd is not None
        assert found.usd > 0
    nothing = cost_of_output(request_, "")
    assert cost_of_chunks(request_, []) == nothing


def test_a_message_that_was_cut_keeps_the_input_that_was_counted() -> None:
    found = cost_of_chunks(MESSAGES, _message_events()[:3])
    wrote = count(TEXT[0]) or 0
    assert (found.input_tokens, found.output_tokens) == (130, wrote)
    assert found.usd == MESSAGE_COST - 10 * 15_000 + wrote * 15_000


def test_a_stream_without_usage_is_counted() -> None:
    events = _response_events()
    events[-1] = {"type": "response.completed", "response": {**RESPONSE, "usage": None}}
    found = cost_of_chunks(RESPONSES, events)
    assert (found.output_tokens, found.estimated) == (count("".join(TEXT)), True)


def test_events_may_be_objects() -> None:
    delta = OutputTextDeltaEvent(
        type="response.output_text.delta", item_id="1", output_index=0, content_index=0, delta="Good morning"
    )
    assert cost_of_chunks(RESPONSES, [delta]).output_tokens == count("Good morning")
    last = ResponseCompletedEvent(type="response.completed", response=ResponsesAPIResponse(**RESPONSE))
    assert cost_of_chunks(RESPONSES, [delta, last]).usd == RESPONSE_COST


def test_sounds_and_pictures_are_not_counted_as_text() -> None:
    events = [{"type": "response.audio.delta", "delta": "AAAA" * 1000}]
    assert cost_of_chunks(RESPONSES, events).output_tokens == 0


def test_tools_and_thoughts_are_text_too() -> None:
    thought = {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "well "}}
    tool = {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "look", "input": {}}}
    given = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}}
    assert cost_of_chunks(MESSAGES, [thought, tool, given]).output_tokens == count('well look{"a": 1}')


def test_the_answers_of_a_session_are_added_up() -> None:
    usage = {
        "input_tokens": 100,
        "output_tokens": 10,
        "input_token_details": {"audio_tokens": 100},
        "output_token_details": {"audio_tokens": 10},
    }
    done = {"type": "response.done", "response": {"usage": usage}}
    request = Request("realtime", "gpt-realtime", None, {})
    found = cost_of_chunks(request, [{"type": "session.created"}, done, done])
    # $32 a million audio input tokens, $64 a million audio output tokens.
    assert (found.usd, found.input_tokens, found.output_tokens) == (200 * 32_000 + 20 * 64_000, 200, 20)
    assert cost_of_chunks(request, []).usd == 0


class _Raises:
    """An object whose fields all fail."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


GARBAGE: list[Any] = [
    _Raises(),
    None, 5, "", "garbage", b"\xff\xfe", [], {}, {"usage": 5}, {"usage": {"input_tokens": "x", "output_tokens": None}},
    {"type": 7, "delta": {"text": 9}, "response": 3, "message": [], "usage": []}, {"output": 4, "content": {"a": 1}},
    {"candidates": [None, 3, {"content": 5}], "usageMetadata": "no"}, {"data": 3, "meta": 7, "pages": "x", "usage_info": 1},
    object(), b'data: {"type": "message_start", "message": 4}\n\n', "data: [DONE]\n\n", float("nan"), {"duration": "long"},
]  # fmt: skip


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_garbage_never_raises(family: str) -> None:
    for model in ("gpt-4o", "gpt-image-1", "tts-1", "whisper-1", "claude-sonnet-4-5", "tavily/search", "", "no/such"):
        for params in ({}, {"input": 5, "prompt": object(), "messages": 7, "contents": 3, "file": 8, "document": "x"}):
            request = Request(family, model, None, params)
            for garbage in GARBAGE:
                for found in (cost_of_response(request, garbage), cost_of_raw(request, garbage)):
                    assert found.usd is None or found.usd >= 0
            for found in (cost_of_chunks(request, GARBAGE), cost_of_output(request, "x")):
                assert found.usd is None or found.usd >= 0


@pytest.mark.parametrize("request_", [RESPONSES, MESSAGES, GOOGLE], ids=lambda request: request.call_type)
def test_a_call_that_is_served_by_chat_is_charged_by_the_chunks_of_the_chat(request_: Request) -> None:
    chunks = [{"model": request_.model, "choices": [{"index": 0, "delta": {"content": text}}]} for text in TEXT]
    assert cost_of_chunks(request_, chunks) == cost_of_output(request_, "".join(TEXT))


def test_messages_that_are_served_by_the_responses_api_are_charged_by_its_events() -> None:
    events = _response_events()
    assert cost_of_chunks(MESSAGES, events[:-1]).output_tokens == cost_of_output(MESSAGES, "".join(TEXT)).output_tokens
    usage: Any = RESPONSE["usage"]
    assert cost_of_chunks(MESSAGES, events).input_tokens == usage["input_tokens"]
