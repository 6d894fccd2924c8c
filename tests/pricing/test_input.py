"""Bounds of the input: text, tools, images, audio, nonsense. Also exact counts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import litellm
import pytest
import tiktoken
import tiktoken.model
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.pricing import Estimate, Request, estimate
from litellm_budget_plugin.pricing.tokens import count, is_cl100k
from tests.generated import examples


def _of(content: Any, model: str = "gpt-4o", *, exact: bool = False, **params: Any) -> Estimate:
    messages = [{"role": "user", "content": content}]
    request = Request("completion", model, None, {"messages": messages, "max_tokens": 1, **params})
    return estimate(request, output_allowance=1, unbounded_hold=0, exact=exact)


@given(st.text(max_size=300))
@examples(200)
def test_bytes_bound_the_tokens_of_any_text(text: str) -> None:
    counted = count(text)
    assert counted is not None
    assert counted <= _of(text).tokens - _of("").tokens


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
@examples(60)
def test_the_bound_holds_against_litellms_own_message_count(texts: list[str]) -> None:
    messages = [{"role": "user", "name": "bob", "content": text} for text in texts]
    request = Request("completion", "gpt-4", None, {"messages": messages, "max_tokens": 1})
    counted = litellm.token_counter(model="gpt-4", messages=messages)
    assert counted <= estimate(request, output_allowance=1, unbounded_hold=0, exact=True).tokens - 1
    assert counted <= estimate(request, output_allowance=1, unbounded_hold=0).tokens - 1


@pytest.mark.parametrize("detail", ["low", "high", "auto", None])
def test_an_image_has_a_bound_of_its_own_whatever_its_base64(detail: str | None) -> None:
    def image(size: int) -> Estimate:
        url = {"url": "data:image/png;base64," + "A" * size, "detail": detail}
        return _of([{"type": "image_url", "image_url": url}])

    assert image(10) == image(4_000_000)
    # The API's own numbers: 85 tokens for low detail, 85 + 8 tiles of 170 at most for high.
    assert image(10).tokens - _of([]).tokens - 4 == (85 if detail == "low" else 1445)
    assert image(10).bounded


def test_images_of_the_mini_model_cost_more_tokens_and_unknown_ones_are_not_bounded() -> None:
    parts = [{"type": "image_url", "image_url": "https://example.com/a.png"}]
    assert _of(parts, "gpt-4o-mini").tokens > 48_169
    assert not _of(parts, "gemini/gemini-2.5-flash").bounded


def test_audio_is_bounded_by_its_size_at_the_lowest_bitrate() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "A" * 40_000, "format": "mp3"}}
    found = _of([part], "gpt-4o-audio-preview-2025-06-03")
    assert found.tokens - _of([], "gpt-4o-audio-preview-2025-06-03").tokens - 4 == 310
    assert found.bounded
    text_price = litellm.model_cost["gpt-4o-audio-preview-2025-06-03"]["input_cost_per_token"]
    assert found.usd - _of([], "gpt-4o-audio-preview-2025-06-03").usd > 310 * text_price * 1e9


@pytest.mark.parametrize("kind", ["file", "video_url", "never_seen"])
def test_parts_that_only_the_provider_can_measure_are_not_bounded(kind: str) -> None:
    assert not _of([{"type": kind, kind: {"file_data": "data:application/pdf;base64," + "A" * 10_000}}]).bounded


def test_tools_and_formats_and_tool_calls_are_counted() -> None:
    plain = _of("hello")
    function = {"name": "f", "description": "d" * 500, "parameters": {}}
    assert _of("hello", tools=[{"type": "function", "function": function}]).tokens > plain.tokens + 500
    assert _of("hello", functions=[function]).tokens > plain.tokens + 500
    assert _of("hello", response_format={"type": "json_schema", "s": "x" * 500}).tokens > plain.tokens + 500
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "a" * 500}}]
    messages = [{"role": "assistant", "content": None, "tool_calls": calls}]
    assert _of("", messages=messages).tokens > 500


@pytest.mark.parametrize("tool", [{"type": "web_search_20250305", "name": "web_search"}, {"googleSearch": {}}])
def test_tools_that_run_at_the_provider_are_not_bounded_and_cost_searches(tool: dict[str, Any]) -> None:
    model = "claude-sonnet-4-5"
    found = _of("hello", model, tools=[tool])
    assert not found.bounded
    assert found.usd >= _of("hello", model).usd + 5 * 10_000_000


def _endless() -> Any:
    while True:
        yield {"role": "user", "content": "x"}


WEIRD: list[Any] = [None, 5, "text", b"bytes", [None], [5], [{}], [[1]], {"role": "user"}, [{"content": 5}], object()]
WEIRD += [
    [{"role": "user", "content": content}] for content in (None, 7, {"a": 1}, [None, 3, [], {}], object(), "\ud800")
]
WEIRD += [[{"role": "user", "content": [{"type": kind}]}] for kind in ("text", "image_url", "input_audio", "file", 5)]
WEIRD += [[{1: 2, "content": {3}}], _endless(), [litellm.Message(content="hi", role="assistant")]]


@pytest.mark.parametrize("messages", WEIRD, ids=range(len(WEIRD)))
@pytest.mark.parametrize("call_type", ["completion", "text_completion", "embedding"])
def test_weird_requests_never_raise(messages: Any, call_type: str) -> None:
    params = {"messages": messages, "prompt": messages, "input": messages, "n": "two", "tools": 5, "timeout": "x"}
    for exact in (False, True):
        found = estimate(Request(call_type, "gpt-4", None, params), output_allowance=10, unbounded_hold=0, exact=exact)
        assert 0 <= found.floor <= found.usd


def test_a_generator_is_not_consumed() -> None:
    messages = iter([{"role": "user", "content": "hello"}])
    found = estimate(
        Request("completion", "gpt-4o", None, {"messages": messages, "max_tokens": 5}),
        output_allowance=1,
        unbounded_hold=0,
    )
    assert not found.bounded
    assert len(list(messages)) == 1


def test_a_structure_that_contains_itself_does_not_raise() -> None:
    loop: dict[str, Any] = {"type": "function"}
    loop["function"] = loop
    assert not _of("hello", tools=[loop]).bounded


FAMILIES = ["gpt-4", "gpt-4-0613", "gpt-4-32k", "gpt-4-turbo", "gpt-4-turbo-2024-04-09", "gpt-4-1106-preview"]
FAMILIES += ["gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-16k", "gpt-3.5-turbo-instruct", "gpt-35-turbo"]
FAMILIES += ["text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large", "ft:gpt-3.5-turbo"]


@pytest.mark.parametrize("model", FAMILIES)
def test_the_list_of_families_is_tiktokens(model: str) -> None:
    assert is_cl100k("openai", model)
    assert tiktoken.model.encoding_name_for_model(model) == "cl100k_base"


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "gpt-4o-mini", "gpt-5", "o1", "gpt-4.5-preview", "davinci-002"])
def test_other_models_are_not_on_the_list(model: str) -> None:
    assert not is_cl100k("openai", model)
    assert not is_cl100k("anthropic", "gpt-4")


@pytest.mark.parametrize(
    "text", ["Hello, world! " * 30, "中文字符" * 30, "<|endoftext|>" * 9, "\n\n  \t" * 50, "a" * 300]
)
def test_exact_counts_the_text_as_the_bundled_encoding_does(text: str) -> None:
    assert count(text)  # LiteLLM points tiktoken at its own file when it counts
    counted = tiktoken.get_encoding("cl100k_base").encode_ordinary(text)
    loose, exact = _of(text, "gpt-4"), _of(text, "gpt-4", exact=True)
    assert exact.tokens - _of("", "gpt-4", exact=True).tokens == len(counted)
    assert (loose.loose, exact.loose) == (True, False)
    assert exact.usd < loose.usd


def test_exact_changes_nothing_for_models_off_the_list() -> None:
    text = "Hello, world! " * 30
    assert _of(text, exact=True) == _of(text)
    assert not _of(text).loose


def test_importing_pricing_does_not_import_litellm() -> None:
    code = "import litellm_budget_plugin.pricing, sys; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
