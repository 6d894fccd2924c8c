"""The figure that a call is charged: the provider's, LiteLLM's, that of LiteLLM's functions on the usage, or an
estimate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponseStream

from litellm_budget_plugin.pricing import Request, cost_of_chunks, cost_of_raw, cost_of_response
from litellm_budget_plugin.pricing.actual import _raw_usage

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
# gpt-4o: $2.50 and $10 a million tokens.
COMPUTED = 100 * 2500 + 10 * 10_000
ABSURD = [
    -1.0,
    float("nan"),
    float("inf"),
    -float("inf"),
    "0.5",
    True,
    1e300,
    {"total_cost": -1},
    {"other": 1},
    [0.5],
    object(),
]


def _request(model: str = "gpt-4o", family: str = "completion", **params: Any) -> Request:
    return Request(family, model, None, {"messages": [{"role": "user", "content": "Hello"}], **params})


def _chat(model: str = "gpt-4o", **usage: Any) -> litellm.ModelResponse:
    return litellm.ModelResponse(model=model, usage=litellm.Usage(**{**USAGE, **usage}))


def _stream(model: str, *, finished: bool = True, **usage: Any) -> list[ModelResponseStream]:
    reason = "stop" if finished else None
    choices = [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": reason}]
    last = ModelResponseStream(model=model, choices=choices)
    last.usage = litellm.Usage(**{**USAGE, **usage})
    return [ModelResponseStream(model=model, choices=[{"index": 0, "delta": {"content": "Hi"}}]), last]


def _response(model: str, **usage: Any) -> dict[str, Any]:
    counts = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110, **usage}
    rest = {"output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {"id": "1", "object": "response", "created_at": 1, "model": model, "usage": counts, **rest}


def _completed(model: str, **usage: Any) -> list[Any]:
    return [
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": _response(model, **usage)},
    ]


def _messages(model: str, **usage: Any) -> list[Any]:
    started = {"type": "message_start", "message": {"model": model, "usage": {"input_tokens": 100, "output_tokens": 1}}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 10, **usage}}
    return [f"data: {json.dumps(event)}\n\n".encode() for event in (started, last)]


Charge = Callable[..., Any]
KINDS: dict[str, tuple[str, Charge]] = {
    "whole": ("completion", lambda r, m, u: cost_of_response(r, _chat(m, **u))),
    "whole text": ("text_completion", lambda r, m, u: cost_of_response(r, _chat(m, **u))),
    "dictionary": ("completion", lambda r, m, u: cost_of_response(r, {"model": m, "usage": {**USAGE, **u}})),
    "raw": ("completion", lambda r, m, u: cost_of_raw(r, json.dumps({"model": m, "usage": {**USAGE, **u}}))),
    "stream": ("completion", lambda r, m, u: cost_of_chunks(r, _stream(m, **u))),
    "dropped stream": ("completion", lambda r, m, u: cost_of_chunks(r, _stream(m, finished=False, **u))),
    "response": ("responses", lambda r, m, u: cost_of_response(r, ResponsesAPIResponse(**_response(m, **u)))),
    "responses stream": ("responses", lambda r, m, u: cost_of_chunks(r, _completed(m, **u))),
    "messages": ("messages", lambda r, m, u: cost_of_response(r, {"model": m, "usage": {"input_tokens": 100, "output_tokens": 10, **u}})),
    "messages stream": ("messages", lambda r, m, u: cost_of_chunks(r, _messages(m, **u))),
    "realtime": ("realtime", lambda r, m, u: cost_of_chunks(r, [{"type": "response.done", "response": _response(m, **u)}])),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        ("openrouter/openai/gpt-4o", {"cost": 0.000777}, 777_000),
        ("openrouter/nobody/unheard", {"cost": 0.000777}, 777_000),
        ("perplexity/sonar", {"cost": {"input_tokens_cost": 0.1, "total_cost": 0.25}}, 250_000_000),
        ("xai/grok-4", {"cost_in_usd_ticks": 62_000_000}, 6_200_000),
        ("xai/unheard", {"cost_in_usd_ticks": 62_000_000}, 6_200_000),
    ],
)
def test_the_providers_own_figure_comes_first(kind: str, model: str, usage: dict[str, Any], cost: int) -> None:
    family, charge = KINDS[kind]
    if kind == "response" and isinstance(usage.get("cost"), dict):
        pytest.skip("LiteLLM's object takes a number only")
    found = charge(_request(model, family), model.partition("/")[2], usage)
    assert (found.usd, found.input_tokens, found.output_tokens, found.estimated) == (cost, 100, 10, False)


@pytest.mark.parametrize(
    "kind", ["whole", "dictionary", "raw", "stream", "dropped stream", "responses stream", "messages"]
)
@pytest.mark.parametrize("absurd", ABSURD, ids=lambda value: type(value).__name__)
def test_an_absurd_figure_is_never_believed(kind: str, absurd: Any) -> None:
    family, charge = KINDS[kind]
    if kind in ("raw", "messages stream") and not isinstance(absurd, (float, str, bool, dict, list)):
        pytest.skip("no JSON")
    for name in ("cost", "cost_in_usd_ticks"):
        found = charge(_request("gpt-4o", family), "gpt-4o", {name: absurd})
        assert found.usd == COMPUTED, name


@pytest.mark.parametrize("said", ["nan", "-1", "x", None, float("inf")])
def test_an_absurd_header_is_never_believed(said: Any) -> None:
    answer = _chat()
    answer._hidden_params = {"additional_headers": {"llm_provider-x-litellm-response-cost": said}}
    assert cost_of_response(_request(), answer, 0.5).usd == 500_000_000
    assert cost_of_response(_request(), answer).usd == COMPUTED


def test_the_header_that_litellm_reads_is_the_providers_figure() -> None:
    answer = _chat()
    answer._hidden_params = {"additional_headers": {"llm_provider-x-litellm-response-cost": "0.25"}}
    assert cost_of_response(_request(), answer, 0.5).usd == 250_000_000


def test_a_figure_of_nothing_stands_where_nobody_knows_better() -> None:
    assert cost_of_response(_request("openrouter/nobody/unheard:free"), _chat("unheard", cost=0.0)).usd == 0
    assert cost_of_response(_request("openrouter/nobody/unheard:free"), _chat("unheard")).usd is None
    # With the caller's own key at the provider, the provider's separate charge is not the cost of the call.
    assert cost_of_response(_request(), _chat(cost=0)).usd == COMPUTED


def test_own_prices_take_the_place_of_the_providers_figure() -> None:
    request = _request("openrouter/openai/gpt-4o", input_cost_per_token=1e-6, output_cost_per_token=2e-6)
    for found in (
        cost_of_response(request, _chat("openai/gpt-4o", cost=0.5)),
        cost_of_chunks(request, _stream("openai/gpt-4o", cost=0.5)),
    ):
        assert found.usd == 100 * 1000 + 10 * 2000


def test_litellms_figure_comes_before_its_functions() -> None:
    assert cost_of_response(_request(), _chat(), 0.5).usd == 500_000_000
    answer = _chat()
    answer._hidden_params["response_cost"] = 0.25
    assert cost_of_response(_request(), answer).usd == 250_000_000


def _logged(cost: Any = None, raw: Any = None) -> Any:
    def calculator(result: object) -> Any:
        if isinstance(cost, Exception):
            raise cost
        return cost

    return SimpleNamespace(_response_cost_calculator=calculator, model_call_details={"original_response": raw})


def test_the_calls_own_logging_object_is_asked_where_litellm_gives_no_figure() -> None:
    assert cost_of_response(_request(), _chat(), logging_obj=_logged(0.5)).usd == 500_000_000
    assert cost_of_response(_request(), _chat(), 0.25, logging_obj=_logged(0.5)).usd == 250_000_000
    assert cost_of_chunks(_request(), _stream("gpt-4o"), logging_obj=_logged(0.5)).usd == 500_000_000
    for nothing in (None, 0.0, float("nan"), "x", ValueError("no price")):
        assert cost_of_response(_request(), _chat(), logging_obj=_logged(nothing)).usd == COMPUTED
        assert cost_of_chunks(_request(), _stream("gpt-4o"), logging_obj=_logged(nothing)).usd == COMPUTED


def test_a_live_logging_object_gives_its_own_figure() -> None:
    logged = litellm.Logging(
        model="gpt-4o",
        messages=[],
        stream=False,
        call_type="completion",
        start_time=None,
        litellm_call_id="1",
        function_id="1",
    )
    logged.update_environment_variables(
        model="gpt-4o", user=None, optional_params={}, litellm_params={}, custom_llm_provider="openai"
    )
    assert cost_of_response(_request(), _chat(), logging_obj=logged).usd == COMPUTED
    assert cost_of_chunks(_request(), _stream("gpt-4o"), logging_obj=logged).usd == COMPUTED


@pytest.mark.parametrize("family", ["compact_responses", "create_batch", "anything"])
def test_an_unknown_call_type_costs_what_somebody_says(family: str) -> None:
    request = _request(family=family)
    assert cost_of_response(request, {"id": "1"}, 0.5).usd == 500_000_000
    assert cost_of_response(request, {"id": "1", "usage": {"cost": 0.25}}).usd == 250_000_000
    assert cost_of_response(request, {"id": "1"}, logging_obj=_logged(0.125)).usd == 125_000_000
    for nothing in (None, 0.0, float("nan")):
        assert cost_of_response(request, {"id": "1"}, nothing).usd is None
    assert cost_of_raw(request, '{"id": "1"}').usd is None
    assert cost_of_chunks(request, []).usd is None


# Differences between the raw answer and LiteLLM's figure.


def _embedded(model: str = "raw-text-embedding", **details: Any) -> litellm.EmbeddingResponse:
    usage = litellm.Usage(
        prompt_tokens=264, completion_tokens=0, total_tokens=264, prompt_tokens_details=details or None
    )
    return litellm.EmbeddingResponse(model=model, data=[], usage=usage)


def _warnings(caplog: pytest.LogCaptureFixture, model: str) -> list[str]:
    found = [record for record in caplog.records if model in record.getMessage()]
    assert all(record.levelname == "WARNING" for record in found)
    return [record.getMessage() for record in found]


def test_a_picture_that_litellm_does_not_bill_is_charged(caplog: pytest.LogCaptureFixture) -> None:
    request = Request("embedding", "text-embedding-3-small", None, {"input": ["text", "data:image/png;base64,AAAA"]})
    # Three tokens of text at $0.02 a million: LiteLLM bills what its details say.
    for _ in range(3):
        answer = _embedded("pictured", text_tokens=3, image_count=1)
        assert cost_of_response(request, answer, 3 * 20e-9).usd == 264 * 20
    assert len(_warnings(caplog, "pictured")) == 1


@pytest.mark.parametrize("raw", [{"model": "gpt-4o", "usage": {**USAGE, "prompt_tokens": 5000}}, None])
@pytest.mark.parametrize("as_text", [True, False])
def test_tokens_that_litellm_did_not_count_are_charged(
    raw: Any, as_text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    logged = _logged(raw=json.dumps(raw) if as_text else raw)
    found = cost_of_response(
        _request(), _chat(f"uncounted-{as_text}-{raw is None}"), COMPUTED / 1e9, logging_obj=logged
    )
    assert found.usd == (COMPUTED if raw is None else 5000 * 2500 + 10 * 10_000)
    assert len(_warnings(caplog, "uncounted")) == (0 if raw is None else 1)


@pytest.mark.parametrize(
    "raw",
    [
        {"usage": {"total_tokens": 264}},
        {"usage": {"prompt_tokens": 264, "total_tokens": 264}},
        {"usage": {"input_tokens": 264, "input_tokens_details": {"image_tokens": 258}, "output_tokens": 0}},
        {"embedding": {"values": [0.1]}, "usageMetadata": {"promptTokenCount": 264, "totalTokenCount": 264}},
    ],
)
def test_an_embedding_whose_text_alone_litellm_has_counted(raw: Any, caplog: pytest.LogCaptureFixture) -> None:
    request = Request("embedding", "text-embedding-3-small", None, {"input": ["text", "data:image/png;base64,AAAA"]})
    usage = litellm.Usage(prompt_tokens=3, completion_tokens=0, total_tokens=3)
    answer = litellm.EmbeddingResponse(model=f"text-alone-{len(json.dumps(raw))}", data=[], usage=usage)
    found = cost_of_response(request, answer, 3 * 20e-9, logging_obj=_logged(raw=json.dumps(raw)))
    assert found.usd == 264 * 20
    assert len(_warnings(caplog, answer.model or "")) == 1


def test_anthropics_raw_counts_are_not_taken_for_less_or_more(caplog: pytest.LogCaptureFixture) -> None:
    usage = {"input_tokens": 100, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30, "output_tokens": 10}
    answer = litellm.ModelResponse(
        model="claude-sonnet-4-5",
        usage=litellm.AnthropicConfig().calculate_usage(usage_object=usage, reasoning_content=None),
    )
    request = _request("claude-sonnet-4-5")
    figure = litellm.completion_cost(answer, model="claude-sonnet-4-5", custom_llm_provider="anthropic")
    raw = json.dumps({"usage": usage, "content": [{"text": 'a "usage": {"prompt_tokens": 999999} b'}]})
    assert cost_of_response(request, answer, figure, logging_obj=_logged(raw=raw)).usd == round(figure * 1e9)
    more = json.dumps({"usage": {**usage, "input_tokens": 1000}})
    found = cost_of_response(request, answer, figure, logging_obj=_logged(raw=more))
    assert found.usd == round(figure * 1e9) + 900 * 3000
    assert len(_warnings(caplog, "claude-sonnet-4-5")) == 1


@pytest.mark.parametrize(
    "raw", ['{"usage": 5}', '{"usage": {', '"usage":', '{"usage": {"prompt_tokens": true}}', "x", 5, []]
)
def test_a_raw_answer_that_cannot_be_read_changes_nothing(raw: Any) -> None:
    assert cost_of_response(_request(), _chat(), 0.5, logging_obj=_logged(raw=raw)).usd == 500_000_000


@pytest.mark.parametrize(
    "details",
    [
        {"cached_tokens": 60},
        {"cached_tokens": 60, "text_tokens": 40},
        {"cached_tokens": 60, "text_tokens": 100},
        {"audio_tokens": 30, "text_tokens": 70},
        {"image_tokens": 30, "cache_creation_tokens": 20, "cached_tokens": 10, "text_tokens": 40},
    ],
)
@pytest.mark.parametrize(
    "config", [{}, {"cost_discount_config": {"openai": 0.5}}, {"cost_margin_config": {"openai": 0.5}}]
)
@pytest.mark.parametrize("tier", [None, "priority", "flex"])
def test_an_ordinary_answer_is_charged_litellms_figure(
    details: dict[str, int],
    config: dict[str, Any],
    tier: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in config.items():
        monkeypatch.setattr(litellm, name, value)
    answer = _chat(prompt_tokens_details=details)
    figure = litellm.completion_cost(
        answer, model="gpt-4o", custom_llm_provider="openai", optional_params={"service_tier": tier}
    )
    logged = _logged(raw=json.dumps({"usage": {**USAGE, "prompt_tokens_details": details}}))
    request = _request(service_tier=tier)
    assert cost_of_response(request, answer, figure, logging_obj=logged).usd == round(figure * 1e9)
    # The functions on the usage have the same result.
    assert cost_of_response(request, answer).usd == round(figure * 1e9)
    assert cost_of_chunks(request, _stream("gpt-4o", prompt_tokens_details=details)).usd == round(figure * 1e9)
    assert not caplog.records


def _answered(answer: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(model_call_details={"original_response": json.dumps(answer)})


def test_a_tool_call_that_speaks_of_usage_is_not_the_usage() -> None:
    """Google's answers contain the arguments of tools unchanged, and their own usage under another name."""
    said = {"prompt_tokens": 10**9, "completion_tokens": 10**6}
    call = {"functionCall": {"name": "f", "args": {"usage": said}}}
    answer = {"candidates": [{"content": {"parts": [call]}}], "usageMetadata": {"promptTokenCount": 1}}
    assert _raw_usage(_answered(answer)) == ("usageMetadata", {"promptTokenCount": 1})
    for whole in ({"a": [call], "usage": {"prompt_tokens": 3}}, {"usage": {"prompt_tokens": 3}, "tier": {"b": [1]}}):
        assert _raw_usage(_answered(whole)) == ("usage", {"prompt_tokens": 3})


def test_a_tier_that_only_the_body_names_is_charged() -> None:
    """LiteLLM looks for it among the arguments. An answer that names its tier shows which one was served."""
    logged = SimpleNamespace(model_call_details={}, _response_cost_calculator=lambda result: COMPUTED / 1e9)
    priority = cost_of_response(_request(service_tier="priority"), _chat()).usd
    assert priority is not None and priority > COMPUTED
    asked = _request(extra_body={"service_tier": "priority"})
    assert cost_of_chunks(asked, _stream("gpt-4o"), logging_obj=logged).usd == priority
    assert cost_of_response(asked, _chat(), COMPUTED / 1e9, logging_obj=logged).usd == priority
    served = _chat()
    served.service_tier = "default"  # type: ignore[attr-defined]
    assert cost_of_response(asked, served, COMPUTED / 1e9, logging_obj=logged).usd == COMPUTED
