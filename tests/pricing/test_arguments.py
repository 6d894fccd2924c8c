"""Arguments count unless they are known: LiteLLM passes on what it does not know, and providers obey it."""

from __future__ import annotations

import io
from typing import Any

import litellm
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from litellm_budget_plugin.pricing import Estimate, Request, estimate, estimate_sent
from litellm_budget_plugin.pricing.arguments import FREE, UNKNOWN, use_of
from litellm_budget_plugin.pricing.scan import scan
from tests.generated import examples

SAID = [{"role": "user", "content": "hello"}]
# A priced model of each family, with a request for it and the arguments that state its limit.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "completion": ("gpt-4o", {"messages": SAID, "max_tokens": 10}),
    "text_completion": ("gpt-3.5-turbo-instruct", {"prompt": "hello", "max_tokens": 10}),
    "embedding": ("text-embedding-3-small", {"input": "hello"}),
    "responses": ("gpt-4o", {"input": "hello", "max_output_tokens": 10}),
    "messages": ("claude-sonnet-4-5", {"messages": SAID, "max_tokens": 10}),
    "generate_content": ("gemini/gemini-2.5-flash", {"contents": "hello", "config": {"maxOutputTokens": 10}}),
}
UNITS: dict[str, tuple[str, dict[str, Any]]] = {
    "image_generation": ("azure/dall-e-3", {"prompt": "a cat", "size": "1024x1024", "quality": "standard"}),
    "image_edit": ("gpt-image-1", {"prompt": "a cat", "image": b"x", "size": "1024x1024", "quality": "low"}),
    "speech": ("tts-1", {"input": "hello", "voice": "x"}),
    "rerank": ("cohere/rerank-v3.5", {"query": "q", "documents": ["a"]}),
    "search": ("tavily/search", {"query": "q"}),
    "ocr": ("mistral/mistral-ocr-latest", {"document": {"image_url": "data:image/png;base64,AAAA"}}),
    "video_generation": ("openai/sora-2", {"prompt": "p", "seconds": 4}),
}
WRITING = [family for family in FAMILIES if family != "embedding"]
LIMITS = [
    "max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "max_new_tokens",
    "max_tokens_to_sample", "max_gen_len", "num_predict", "n_predict", "maxTokenCount", "max_length", "maxLength",
    "max-tokens", "MAX_TOKENS", "min_tokens", "max_generated_tokens", "max_response_output_tokens", "token_limit",
    "maximum_tokens", "max_answer_length", "generation_length", "response_length", "thinking_budget", "reasoning_budget",
    "budget_tokens", "maxGenLen", "length",
]  # fmt: skip
COPIES = [
    "n", "best_of", "bestOf", "candidate_count", "candidateCount", "num_generations", "num_return_sequences",
    "numResponses", "num_completions", "n_completions", "num_choices", "num_samples", "numSamples", "beam_width",
    "num_beams", "sampleCount", "num_outputs", "number_of_completions",
]  # fmt: skip
PLACES = [
    "extra_body", "config", "generationConfig", "inferenceConfig", "additionalModelRequestFields", "options", "parameters",
    "text_generation_config", "textGenerationConfig", "reasoning", "model_kwargs", "provider", "sampling_params", "x",
]  # fmt: skip
_NAMES = st.text(st.characters(categories=("Ll", "Lu", "Nd"), max_codepoint=0x2FF), min_size=1, max_size=12)
_VALUES = st.recursive(
    st.one_of(st.text(max_size=40), st.integers(-(10**6), 10**6), st.booleans()),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(_NAMES, inner, min_size=1, max_size=3),
    max_leaves=6,
)


def _request(family: str, **params: Any) -> Request:
    model, plain = (FAMILIES | UNITS)[family]
    return Request(family, model, None, {**plain, **params})


def _of(family: str, **params: Any) -> Estimate:
    return estimate(_request(family, **params), output_allowance=10, unbounded_hold=10**6)


def _bytes(value: Any) -> int:
    """Return the UTF-8 bytes of all names, texts and numbers in a value."""
    if isinstance(value, dict):
        return sum(_bytes(name) + _bytes(item) for name, item in value.items())
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return 0 if isinstance(value, bool) else len(str(value).encode())


@st.composite
def _nested(draw: st.DrawFn, name: str, value: object) -> dict[str, Any]:
    """Draw an argument with this field somewhere inside it."""
    found: Any = {name: draw(st.sampled_from([value, str(value), f" {value} ", float(str(value))]))}
    for place in draw(st.lists(st.sampled_from(PLACES), max_size=4)):
        found = {place: draw(st.sampled_from([found, [found], [{}, found]]))}
        if isinstance(found[place], list) and draw(st.booleans()):
            found[place] = tuple(found[place])
    return {**draw(st.dictionaries(_NAMES, _VALUES, max_size=2)), **found}


def _laid_over(family: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return drawn arguments in addition to those of the plain request. They replace none of them, except for a limit
    of the same name.
    """
    plain = (FAMILIES | UNITS)[family][1]
    config = plain.get("config")
    if config and "config" in params:
        assume(isinstance(params["config"], dict))
        params = {**params, "config": {**config, **params["config"]}}
    else:
        assume(not plain.keys() & params.keys() - set(LIMITS))
    return params


@pytest.mark.parametrize("family", FAMILIES)
@given(params=st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=4))
@examples(60)
def test_an_unknown_argument_counts_by_its_bytes_and_leaves_nothing_bounded(
    family: str, params: dict[str, Any]
) -> None:
    unknown = {name: value for name, value in params.items() if use_of(family, name) == UNKNOWN}
    plain, found = _of(family), _of(family, **params)
    assert plain.bounded
    assert found.usd >= plain.usd
    assert found.tokens - plain.tokens >= _bytes(unknown)
    assert found.bounded == (not unknown)


@pytest.mark.parametrize("family", UNITS)
@given(params=st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=4))
@examples(40)
def test_an_unknown_argument_leaves_no_other_family_bounded(family: str, params: dict[str, Any]) -> None:
    plain, found = _of(family), _of(family, **params)
    unknown = any(use_of(family, name) == UNKNOWN for name in params)
    assert plain.bounded
    assert found.usd >= plain.usd
    assert not found.bounded or not unknown


@pytest.mark.parametrize("family", WRITING)
@given(data=st.data())
@examples(80)
def test_a_limit_in_any_spelling_and_any_place_is_held_for(family: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(LIMITS))
    limit = data.draw(st.integers(11, 100_000))
    params = _laid_over(family, data.draw(_nested(name, limit)))
    assert _of(family, **params).tokens - _of(family).tokens >= limit - 10


@pytest.mark.parametrize("family", WRITING)
@given(data=st.data())
@examples(80)
def test_a_number_of_answers_in_any_spelling_and_any_place_is_held_for(family: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(COPIES))
    copies = data.draw(st.integers(2, 500))
    params = _laid_over(family, data.draw(_nested(name, copies)))
    assert _of(family, **params).tokens - _of(family).tokens >= 10 * (copies - 1)


@pytest.mark.parametrize("family", ["image_generation", "image_edit", "video_generation"])
@given(data=st.data())
@examples(60)
def test_more_pieces_in_any_spelling_and_any_place_multiply_the_price(family: str, data: st.DataObject) -> None:
    names = ["n", "num_images", "numberOfImages", "sampleCount", "sample_count", "num_outputs", "image_count", "copies"]
    copies = data.draw(st.integers(2, 50))
    params = _laid_over(family, data.draw(_nested(data.draw(st.sampled_from(names)), copies)))
    # The prompt of an image is billed once.
    assert _of(family, **params).usd >= 0.9 * copies * _of(family).floor


@given(data=st.data())
@examples(60)
def test_a_longer_video_in_any_spelling_and_any_place_is_held_for(data: st.DataObject) -> None:
    names = ["seconds", "duration", "durationSeconds", "duration_seconds", "video_duration", "length_seconds"]
    seconds = data.draw(st.integers(5, 60))
    params = data.draw(_nested(data.draw(st.sampled_from(names)), seconds))
    assert _of("video_generation", **params).usd >= _of("video_generation").usd * seconds // 4


LONG = "words of a hundred kilobytes " * 3450
REPORTED: list[tuple[str, str, dict[str, Any]]] = [
    ("completion", "gemini/gemini-2.5-flash", {"messages": SAID, "max_tokens": 10, "max_output_tokens": 60_000}),
    ("completion", "gemini/gemini-2.5-flash", {"messages": SAID, "max_tokens": 10, "candidate_count": 8}),
    ("completion", "claude-sonnet-4-5", {"messages": SAID, "max_tokens": 10, "system": LONG}),
    ("text_completion", "gpt-3.5-turbo-instruct", {"prompt": "hi", "max_tokens": 10, "suffix": LONG}),
    ("completion", "gpt-4o", {"messages": SAID, "max_tokens": 10, "extra_body": {"max_tokens": None}}),
    ("completion", "gpt-4o", {"messages": SAID, "max_tokens": 10, "user_continue_message": {"content": LONG}}),
]


@pytest.mark.parametrize(("family", "model", "params"), REPORTED)
def test_what_once_passed_a_limit_is_held_for(family: str, model: str, params: dict[str, Any]) -> None:
    names = list(params)
    found = estimate(Request(family, model, None, params), output_allowance=4096, unbounded_hold=0)
    plain = {name: params[name] for name in names[:2]}
    before = estimate(Request(family, model, None, plain), output_allowance=4096, unbounded_hold=0)
    asked = params[names[2]]
    least = {"max_output_tokens": 59_990, "candidate_count": 70, "extra_body": 4086}.get(names[2], 100_000)
    assert found.tokens - before.tokens >= least, asked
    assert found.bounded == (names[2] in ("system", "suffix"))


@pytest.mark.parametrize("limit", [-1, 0, "unlimited", "-1", float("inf"), float("nan")])
@pytest.mark.parametrize("place", ["max_tokens", "num_predict"])
def test_no_limit_is_no_bound(limit: object, place: str) -> None:
    params: dict[str, Any] = {"messages": SAID, "max_tokens": 10, place: limit}
    found = estimate(Request("completion", "gpt-4o", None, params), output_allowance=4096, unbounded_hold=0)
    assert not found.bounded
    assert found.tokens >= 4096


@pytest.mark.parametrize(
    "name", ["metadata", "litellm_call_id", "api_key", "max_retries", "max_budget", "temperature", "user"]
)
@pytest.mark.parametrize("family", WRITING)
def test_what_costs_nothing_changes_nothing(family: str, name: str) -> None:
    assert use_of(family, name) == FREE
    assert _of(family, **{name: {"max_tokens": 10**6, "text": "x" * 1000}}) == _of(family)


def test_every_argument_of_litellms_own_functions_has_a_use() -> None:
    signatures = {
        "completion": litellm.completion, "text_completion": litellm.text_completion, "embedding": litellm.embedding,
        "responses": litellm.responses, "image_generation": litellm.image_generation, "image_edit": litellm.image_edit,
        "speech": litellm.speech, "rerank": litellm.rerank, "search": litellm.search, "transcription": litellm.transcription,
        "video_generation": litellm.video_generation,
    }  # fmt: skip
    # These may add content that cannot be seen.
    not_known = {"prompt", "previous_response_id", "extra_body", "extra_query", "web_search_options", "keywords"}
    import inspect

    for family, function in signatures.items():
        for name in inspect.signature(function).parameters:
            assert use_of(family, name) != UNKNOWN or name in not_known, (family, name)


def test_a_scan_reads_anything_once_and_consumes_nothing() -> None:
    loop: list[Any] = ["x" * 100]
    loop.append(loop)
    deep: Any = "x" * 1000
    for _ in range(900):
        deep = {"a": [deep]}
    generator = iter([1, 2])
    file = io.BytesIO(b"x" * 10)
    assert scan(loop).text > 10**6
    assert 1000 <= scan(deep).text < 10_000
    assert not scan({"a": generator}).readable
    assert list(generator) == [1, 2]
    assert scan({"a": file}).media == 1
    assert file.tell() == 0
    for odd in (
        {1: 2, None: {3}},
        object(),
        litellm.ModelResponse,
        "\ud800",
        {"max_tokens": 10**5000},
        {"n": float("nan")},
    ):
        assert scan(odd).size >= 0


def test_media_are_noticed_and_their_base64_is_no_text() -> None:
    data = "QUJD" * 10_000
    for value in (
        {"image_url": {"url": f"data:image/png;base64,{data}"}},
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {"source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"image": {"format": "png", "source": {"bytes": data}}},
        {"images": [data]},
        {"input_audio": {"data": data, "format": "mp3"}},
        {"x": b"abc"},
    ):
        found = scan(value)
        assert (found.media, found.text < 100) == (1, True), value
    assert scan({"source": {"type": "text", "media_type": "text/plain", "data": "words " * 1000}}).text >= 6000
    assert scan({"prompt": "data:text/plain;base64," + data}).text >= 40_000


def test_the_arguments_of_the_body_have_the_last_word() -> None:
    for family in WRITING:
        request = _request(family)
        held = _of(family)
        for body in (
            {"max_output_tokens": 60_000},
            {"generationConfig": {"maxOutputTokens": "60000"}},
            {"options": {"num_predict": 60_000}},
            '{"inferenceConfig": {"maxTokens": 60000}}',
            b'{"max_tokens": 6e4}',
            {"messages": [{"role": "user", "content": "x" * 60_000}]},
            {"max_tokens": 10, "candidateCount": 6000},
            "x" * 60_000,
        ):
            found = estimate_sent(request, body, held, output_allowance=10, unbounded_hold=0)
            assert found.tokens >= held.tokens + 50_000, body
            assert (found.bounded, found.usd > held.usd) == (False, True)
            assert estimate_sent(request, body, found, output_allowance=10, unbounded_hold=0) is found
        for body in (None, {}, object(), [], {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}):
            assert estimate_sent(request, body, held, output_allowance=10, unbounded_hold=0) is held


def test_a_cache_that_only_the_body_asks_for_is_held_for() -> None:
    request, held = _request("messages"), _of("messages")
    body = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
        ]
    }
    assert estimate_sent(request, body, held, output_allowance=10, unbounded_hold=0).usd > held.usd


@pytest.mark.parametrize("call_type", ["compact_responses", "video_extension", "arealtime_calls", "", "aquery"])
def test_a_call_type_without_an_estimate_is_held_with_the_set_sum(call_type: str) -> None:
    request = Request(call_type, "gpt-4o", None, {"messages": SAID})
    found = estimate(request, output_allowance=1, unbounded_hold=77)
    assert (found.usd, found.floor, found.priced, found.bounded) == (77, 77, True, False)
    assert estimate_sent(request, {"max_tokens": 10**6}, found, output_allowance=1, unbounded_hold=77) is found
