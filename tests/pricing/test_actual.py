"""The actual costs of calls."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from litellm.types.utils import ModelResponseStream

from litellm_budget_plugin.pricing import (
    Request,
    cost_of_chunks,
    cost_of_output,
    cost_of_raw,
    cost_of_response,
)
from litellm_budget_plugin.pricing.tokens import count

# gpt-4o: $2.50 and $10 a million tokens.
TEN_AND_TWO = 10 * 2500 + 2 * 10_000


def _request(model: str = "gpt-4o", **params: Any) -> Request:
    return Request("completion", model, None, {"messages": [{"role": "user", "content": "Hello there"}], **params})


def _answer(model: str = "gpt-4o", read: int = 10, wrote: int = 2) -> litellm.ModelResponse:
    usage = litellm.Usage(prompt_tokens=read, completion_tokens=wrote, total_tokens=read + wrote)
    return litellm.ModelResponse(model=model, usage=usage)


def test_a_positive_cost_is_taken_as_it_is() -> None:
    found = cost_of_response(_request(), _answer(), 0.123)
    assert (found.usd, found.model, found.input_tokens, found.output_tokens) == (123_000_000, "gpt-4o", 10, 2)
    assert not found.estimated


@pytest.mark.parametrize("said", [None, 0.0, float("nan"), float("inf"), -1.0])
def test_no_cost_or_nonsense_is_computed_from_usage(said: float | None) -> None:
    assert cost_of_response(_request(), _answer(), said).usd == TEN_AND_TWO


def test_a_dictionary_is_an_answer_too() -> None:
    answer = {"model": "gpt-4o", "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": None}}
    assert cost_of_response(_request(), answer).usd == TEN_AND_TWO


def test_an_unknown_model_has_no_cost_even_when_the_router_says_zero() -> None:
    found = cost_of_response(_request("openai/unheard"), _answer("unheard"), 0.0)
    assert (found.usd, found.input_tokens) == (None, 10)


def test_a_known_zero_price_is_zero() -> None:
    request = _request("openai/unheard", input_cost_per_token=0, output_cost_per_token=0)
    assert cost_of_response(request, _answer("unheard"), 0.0).usd == 0


def test_an_unnamed_deployment_is_priced_by_the_model_that_answered() -> None:
    assert cost_of_response(_request("azure/mine"), _answer("gpt-4o-2024-08-06")).usd == TEN_AND_TWO


def test_callers_prices_are_charged() -> None:
    request = _request("openai/unheard", input_cost_per_token=1e-6, output_cost_per_token=2e-6)
    assert cost_of_response(request, _answer("unheard")).usd == 10 * 1000 + 2 * 2000


def test_a_cache_hit_costs_nothing() -> None:
    answer = _answer()
    answer._hidden_params["cache_hit"] = True  # the place where LiteLLM puts it
    assert cost_of_response(_request(), answer, 0.0).usd == 0


def test_without_usage_the_text_is_counted() -> None:
    choice = {"message": {"role": "assistant", "content": "Good morning to you"}, "index": 0}
    found = cost_of_response(_request(), {"model": "gpt-4o", "choices": [choice]}, 0.0)
    assert found.estimated
    assert found.output_tokens == count("Good morning to you")
    assert found.usd == found.input_tokens * 2500 + found.output_tokens * 10_000


def test_a_dropped_call_is_charged_for_input_and_what_came() -> None:
    nothing, some = cost_of_output(_request(), ""), cost_of_output(_request(), "Good morning")
    # Two words, and 4 tokens a message.
    assert (nothing.input_tokens, nothing.output_tokens) == (6, 0)
    assert nothing.usd == 6 * 2500
    assert some.usd == 6 * 2500 + (count("Good morning") or 0) * 10_000
    assert nothing.estimated
    assert some.estimated


def _chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, usage: Any = None) -> ModelResponseStream:
    chunk = ModelResponseStream(model="gpt-4o", choices=[{"index": index, "delta": delta, "finish_reason": finish}])
    if usage:
        chunk.usage = usage
    return chunk


def test_chunks_without_usage_are_counted_in_all_their_fields_and_choices() -> None:
    call = {"index": 0, "function": {"name": "look", "arguments": '{"a": 1}'}, "id": "1", "type": "function"}
    chunks = [_chunk({"content": "Good "}), _chunk({"reasoning_content": "thinking "})]
    chunks += [_chunk({"tool_calls": [call]}), _chunk({"content": "second choice"}, index=1)]
    found = cost_of_chunks(_request(), chunks)
    assert found.output_tokens == count('Good thinking look{"a": 1}second choice')
    assert found.estimated


def test_chunks_with_usage_at_the_end_are_charged_by_it() -> None:
    usage = litellm.Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    found = cost_of_chunks(_request(), [_chunk({"content": "a" * 500}), _chunk({}, "stop", usage=usage)])
    assert (found.usd, found.estimated) == (TEN_AND_TWO, False)


def test_usage_before_the_end_gives_the_input_and_the_text_the_output() -> None:
    usage = litellm.Usage(prompt_tokens=10, completion_tokens=1, total_tokens=11)
    found = cost_of_chunks(_request(), [_chunk({"content": ""}, usage=usage), _chunk({"content": "one two three"})])
    assert (found.input_tokens, found.output_tokens, found.estimated) == (10, count("one two three"), True)


def test_no_chunks_are_the_input_alone() -> None:
    assert cost_of_chunks(_request(), []) == cost_of_output(_request(), "")


def test_raw_answers_in_openai_form() -> None:
    raw = json.dumps({"model": "gpt-4o", "usage": {"prompt_tokens": 10, "completion_tokens": 2}})
    assert cost_of_raw(_request(), raw).usd == TEN_AND_TWO
    assert cost_of_raw(_request(), json.loads(raw)).usd == TEN_AND_TWO


def test_raw_answers_in_anthropic_form_count_caches_beside_the_input() -> None:
    model = "claude-sonnet-4-5"
    usage = {
        "input_tokens": 10,
        "output_tokens": 2,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
    }
    found = cost_of_raw(_request(model), {"model": model, "usage": usage})
    # $3, $15, $0.30 read and $3.75 written a million.
    assert found.usd == 10 * 3000 + 2 * 15_000 + 100 * 300 + 1000 * 3750
    assert found.input_tokens == 1110


@pytest.mark.parametrize("raw", ["garbage", "", None, 5, "[]", "{}", b"\xff", {"usage": None}, {"usage": {"x": "y"}}])
def test_unreadable_raw_answers_are_the_input_alone(raw: Any) -> None:
    found = cost_of_raw(_request(), raw)
    assert (found.usd, found.estimated) == (6 * 2500, True)


def test_embeddings_are_charged_by_their_usage() -> None:
    request = Request("embedding", "text-embedding-3-small", None, {"input": "hello"})
    usage = litellm.Usage(prompt_tokens=1000, completion_tokens=0, total_tokens=1000)
    answer = litellm.EmbeddingResponse(model="text-embedding-3-small", data=[], usage=usage)
    assert cost_of_response(request, answer).usd == 1000 * 20
