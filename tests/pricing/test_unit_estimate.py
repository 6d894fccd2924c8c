"""The quantities that requests of the other families show before they are sent."""

from __future__ import annotations

import base64
import io
import os
import zlib
from pathlib import Path
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from litellm_budget_plugin.pricing import Estimate, Request, estimate
from litellm_budget_plugin.pricing.audio import audio_duration
from litellm_budget_plugin.pricing.documents import count_pages
from tests.generated import examples
from tests.pricing.fabricated import EVERY_FAMILY, mp3, pdf, wav

HOLD = 100_000_000


def _estimate(call_type: str, model: str, **params: Any) -> Estimate:
    return estimate(Request(call_type, model, None, params), output_allowance=4096, unbounded_hold=HOLD)


_NAMES = (
    "input", "prompt", "messages", "contents", "config", "instructions", "tools", "system", "text", "text_format", "file",
    "document", "pages", "query", "documents", "n", "size", "quality", "image", "mask", "seconds", "max_results", "voice",
    "thinking", "max_tokens", "max_output_tokens", "extra_body", "resolution", "width", "height", "search_provider",
    "advanced_settings", "partial_images", "sampleCount", "bbox_annotation_format", "service_tier", "systemInstruction",
)  # fmt: skip
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=20),
    st.sampled_from(["auto", "1024x1024", "99999999x1", "data:application/pdf;base64,JVBERi0=", "type", b"RIFF", object()]),
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "parts", "text", "inlineData", "url", "document_url", "max_results"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@given(params=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6))
@examples(60)
def test_no_request_is_too_odd_for_an_estimate(family: str, params: dict[str, Any]) -> None:
    for model in (
        "gpt-4o",
        "azure/dall-e-3",
        "gpt-image-1",
        "whisper-1",
        "tts-1",
        "mistral/mistral-ocr-latest",
        "",
        "a/b",
    ):
        found = estimate(Request(family, model, None, params), output_allowance=1, unbounded_hold=HOLD)
        assert 0 <= found.floor <= found.usd
        assert found.tokens >= 0


# OCR.


def _document(data: bytes, kind: str = "application/pdf") -> dict[str, str]:
    return {"type": "document_url", "document_url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


def test_pages_of_a_pdf_in_the_request_are_counted() -> None:
    found = _estimate("ocr", "mistral/mistral-ocr-latest", document=_document(pdf(7)))
    assert (found.usd, found.floor, found.bounded) == (7 * 4_000_000, 7 * 4_000_000, True)


def test_pages_inside_packed_objects_are_counted() -> None:
    inner = zlib.compress(b"1 0 2 30 << /Type /Page >> << /Type/Page >> << /Type /Pages /Count 2 >>")
    packed = b"%PDF-1.5\n1 0 obj\n<< /Type /ObjStm /Filter /FlateDecode >>\nstream\n" + inner + b"\nendstream"
    assert count_pages(packed) == 2
    assert count_pages(packed.replace(inner, b"broken")) is None
    assert count_pages(b"%PDF-1.5 /Encrypt /Type /Page") is None
    assert count_pages(b"no such file") is None


def test_an_annotation_is_paid_beside_the_page() -> None:
    found = _estimate("ocr", "mistral/mistral-ocr-latest", document=_document(pdf(2)), bbox_annotation_format={"a": 1})
    assert found.usd == 2 * (4_000_000 + 5_000_000)


def test_an_image_is_a_page_and_a_choice_of_pages_is_their_number() -> None:
    image = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
    assert _estimate("ocr", "mistral/mistral-ocr-latest", document=image).usd == 4_000_000
    chosen = _estimate("ocr", "mistral/mistral-ocr-latest", document={"document_url": "https://x/y"}, pages=[0, 3, 5])
    assert (chosen.usd, chosen.bounded) == (3 * 4_000_000, True)


# Unknown quantities.

UNKNOWN = [
    ("ocr", "mistral/mistral-ocr-latest", {"document": {"type": "document_url", "document_url": "https://x/y.pdf"}}),
    ("ocr", "mistral/mistral-ocr-latest", {"document": {"type": "document_url", "document_url": "data:application/pdf;base64,!"}}),
    ("ocr", "reducto/parse-v3", {"document": {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}}),
    ("realtime", "gpt-realtime", {}),
    ("transcription", "whisper-1", {"file": iter([b"x"])}),
    ("transcription", "whisper-1", {"file": "https://x/y.mp3"}),
    ("rerank", "cohere/rerank-v3.5", {"query": "q", "documents": iter(["a"])}),
]  # fmt: skip


@pytest.mark.parametrize(("call_type", "model", "params"), UNKNOWN)
def test_without_a_quantity_the_set_sum_is_held(call_type: str, model: str, params: dict[str, Any]) -> None:
    found = _estimate(call_type, model, **params)
    assert (found.usd, found.priced, found.bounded) == (HOLD, True, False)
    assert found.floor < HOLD


def test_a_video_of_no_stated_length_is_held_as_a_long_one_at_least() -> None:
    found = _estimate("video_generation", "openai/sora-2", prompt="p")
    assert (found.usd, found.floor, found.bounded) == (10 * HOLD, 4 * HOLD, False)
    cheap = _estimate("video_generation", "openai/own", prompt="p", output_cost_per_second=1e-6)
    assert (cheap.usd, cheap.bounded) == (HOLD, False)


def test_what_is_free_is_free_in_any_quantity(cost_map: dict[str, Any]) -> None:
    cost_map["mistral/free-ocr"] = {"litellm_provider": "mistral", "mode": "ocr", "ocr_cost_per_page": 0.0}
    found = _estimate("ocr", "mistral/free-ocr", document={"document_url": "https://x/y"})
    assert (found.usd, found.priced, found.bounded) == (0, True, True)
    assert _estimate("search", "searxng/search", query="q").usd == 0


def test_the_set_sum_does_not_raise_what_is_merely_not_proven() -> None:
    chat = _estimate("completion", "xai/grok-4.3", messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    assert (chat.bounded, 0 < chat.usd < HOLD) == (False, True)
    speech = _estimate("speech", "gpt-4o-mini-tts", input="hi", voice="x")
    assert (speech.bounded, 0 < speech.usd < HOLD) == (False, True)


def test_moderation_is_free_of_any_model() -> None:
    found = _estimate("moderation", "openai/never-heard-of", input="x")
    assert (found.usd, found.priced, found.bounded) == (0, True, True)


# Sound.


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_wav_file_says_how_long_it_is(rate: int) -> None:
    found = _estimate("transcription", "whisper-1", file=wav(30, rate))
    assert (found.usd, found.bounded) == (30 * 100_000, True)
    assert found.floor == found.usd


def test_an_mp3_file_is_bounded_by_the_lowest_rate_of_its_format() -> None:
    found = audio_duration(mp3(60, 8))
    assert (found.most, found.certain) == (61, True)
    assert audio_duration(mp3(60, 128)).probable == 60


def test_a_flac_file_says_how_long_it_is() -> None:
    packed = (44_100 << 44 | 90 * 44_100).to_bytes(8, "big")
    found = audio_duration(b"fLaC" + bytes(14) + packed + bytes(1000))
    assert (found.most, found.certain) == (90, True)


def test_other_formats_are_reckoned_without_a_promise() -> None:
    for head in (b"OggS", b"\0\0\0\x20ftypM4A ", b"\x1aE\xdf\xa3", b"#!AMR", b"????"):
        found = audio_duration(head + bytes(100_000))
        assert (found.known, found.certain) == (True, False)
        assert found.most >= 100


def test_a_file_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(10))
    for make in (lambda: path.open("rb"), lambda: io.BytesIO(wav(10))):
        with make() as file:
            file.seek(17)
            assert audio_duration(file).most == audio_duration(("a.wav", file)).most == 10
            assert file.tell() == 17
    assert audio_duration(path).most == audio_duration(("a.wav", path, "audio/wav")).most == 10
    assert audio_duration(wav(10)).most == audio_duration(bytearray(wav(10))).most == 10


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.mp3"
    with path.open("wb") as file:
        file.write(b"ID3")
        file.truncate(1 << 40)
    assert audio_duration(path).most == -(-(1 << 40) // 1000)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not audio_duration(tmp_path / "pipe").known
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb"):
        assert not audio_duration(reader).known


class _Broken(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise OSError("gone")


def test_a_broken_file_is_unknown_and_left_as_it_was() -> None:
    file = _Broken(b"x" * 100)
    file.seek(5)
    assert not audio_duration(file).known
    assert file.tell() == 5


# Images.


def test_size_and_quality_choose_the_price() -> None:
    def usd(**params: Any) -> int:
        return _estimate("image_generation", "azure/dall-e-3", prompt="a cat", **params).usd

    standard, hd = 1024 * 1024 * 41.9617, 1024 * 1792 * 71.9343
    assert usd(size="1024x1024", quality="standard") == pytest.approx(standard, rel=1e-6)
    assert usd(size="1024x1792", quality="hd") == pytest.approx(hd, rel=1e-6)
    assert usd() == usd(size="auto", quality="auto") == usd(size="1024x1792", quality="hd")
    assert usd(n=3) == pytest.approx(3 * usd(), rel=1e-6)
    floor = _estimate("image_generation", "azure/dall-e-3", prompt="a cat").floor
    assert floor == usd(size="1024x1024", quality="standard")


def test_tokens_of_documented_images_are_bounded() -> None:
    def found(**params: Any) -> Estimate:
        return _estimate("image_generation", "gpt-image-1", prompt="", **params)

    low, dearest = found(size="1024x1024", quality="low"), found()
    assert low.usd - found(size="1024x1024", quality="medium").usd == (272 - 1056) * 40_000
    assert dearest.usd == found(size="1024x1536", quality="high").usd
    assert low.bounded
    assert dearest.bounded
    assert not found(size="3000x3000").bounded
    assert found(partial_images=2).usd == dearest.usd + 2 * 100 * 40_000


def test_images_that_are_given_are_paid_too() -> None:
    one = _estimate("image_edit", "gpt-image-1", prompt="x", image=b"x")
    four = _estimate("image_edit", "gpt-image-1", prompt="x", image=[b"x"] * 3, mask=b"x")
    assert four.usd > one.usd
    assert one.bounded


def test_no_discount_lowers_what_litellm_does_not_discount(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _estimate("image_generation", "recraft/recraftv3", prompt="x").usd
    speech = _estimate("speech", "tts-1", input="hello", voice="x").usd
    monkeypatch.setattr(litellm, "cost_discount_config", {"recraft": 0.5, "openai": 0.5})
    assert _estimate("image_generation", "recraft/recraftv3", prompt="x").usd == before
    assert _estimate("speech", "tts-1", input="hello", voice="x").usd == -(-speech // 2)


# Searches and reranking.


def test_searches_are_counted_by_queries_and_results() -> None:
    def usd(model: str, **params: Any) -> int:
        return _estimate("search", model, **params).usd

    assert usd("tavily/search", query=["a", "b", "c"]) == 3 * 8_000_000
    assert usd("", search_provider="tavily", query="a") == usd("tavily", query="a") == 8_000_000
    assert usd("tavily/search", query="a", search_depth="advanced") == 16_000_000
    assert usd("exa_ai/search", query="a", max_results=25) == 5_000_000
    assert usd("exa_ai/search", query="a") == 25_000_000
    assert usd("parallel_ai/search", query="a", max_results=12) == 5_000_000 + 2 * 1_000_000


def test_a_search_unit_is_a_hundred_documents_or_pieces_of_them() -> None:
    def usd(documents: list[Any]) -> int:
        return _estimate("rerank", "cohere/rerank-v3.5", query="q", documents=documents).usd

    assert usd(["a"] * 100) == 2_000_000
    assert usd(["a"] * 101) == 4_000_000
    assert usd(["a" * 499 * 101]) == 4_000_000
    assert usd([{"text": "a", "title": "b"}]) == 2_000_000


# The other chat APIs.


def _gpt(**params: Any) -> Estimate:
    return _estimate("responses", "gpt-4o", **{"input": "hello", "max_output_tokens": 10, **params})


def _claude(**params: Any) -> Estimate:
    message = {"role": "user", "content": "hello"}
    return _estimate("messages", "claude-sonnet-4-5", **{"messages": [message], "max_tokens": 10, **params})


def _gemini(**params: Any) -> Estimate:
    config = {"maxOutputTokens": 10}
    return _estimate("generate_content", "gemini/gemini-2.5-flash", **{"contents": "hello", "config": config, **params})


class _Config(BaseModel):
    max_output_tokens: int = 10
    candidate_count: int = 2


@pytest.mark.parametrize("make", [_gpt, _claude, _gemini])
def test_plain_requests_are_bounded_and_priced_by_their_limit(make: Any) -> None:
    found = make()
    assert found.bounded
    assert 0 < found.floor < found.usd


def test_limits_are_read_in_each_familys_words() -> None:
    # A newer LiteLLM knows places where this model is more expensive, and a request does not show its place.
    dearest = max([v for n, v in litellm.model_cost["gpt-4o"].items() if "multiplier" in n and v], default=1)
    assert _gpt(max_output_tokens=110).usd - _gpt().usd == round(100 * 10_000 * dearest)
    assert _claude(max_tokens=110).usd - _claude().usd == 100 * 15_000
    several = _gemini(config={"max_output_tokens": 10, "candidateCount": 3})
    assert several.usd - _gemini().usd == 20 * 2500
    assert _gemini(config=_Config()).usd - _gemini().usd == 10 * 2500
    for found in (_gpt(max_output_tokens=None), _gemini(config=None), _claude(max_tokens=None)):
        assert not found.bounded
    assert _gpt(max_output_tokens=None).usd - _gpt().usd == round(4086 * 10_000 * dearest)


def test_what_is_said_adds_up_wherever_it_stands() -> None:
    long = "x" * 1000
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10**6}
    assert _gpt(instructions=long).tokens >= _gpt().tokens + 1000
    assert _gpt(input=[{"role": "user", "content": [{"type": "input_text", "text": long}]}]).tokens > 1000
    assert _gpt(input=[{"type": "function_call_output", "call_id": "1", "output": long}]).tokens > 1000
    assert _gpt(input=[{"role": "user", "content": [image]}]).tokens < 5000
    assert _claude(system=long).tokens >= _claude().tokens + 1000
    assert _claude(system=[{"type": "text", "text": long}]).tokens >= _claude().tokens + 1000
    for contents in (long, [long], [{"role": "user", "parts": [{"text": long}]}], {"parts": [long]}):
        assert 1000 < _gemini(contents=contents).tokens < 3000
    assert _gemini(systemInstruction={"parts": [{"text": long}]}).tokens > 1000
    assert _gemini(config={"maxOutputTokens": 10, "system_instruction": long}).tokens > 1000
    blob = {"inlineData": {"mimeType": "image/png", "data": "A" * 10**6}}
    assert _gemini(contents=[{"parts": [blob]}]).tokens < 20_000


def test_functions_of_the_caller_are_bounded_and_tools_at_the_provider_are_not() -> None:
    function = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    assert _gpt(tools=[function]).bounded
    assert _claude(tools=[{"name": "look", "input_schema": {}}]).bounded
    assert _gemini(tools=[{"functionDeclarations": [{"name": "look"}]}]).bounded
    for found, plain in (
        (_gpt(tools=[{"type": "web_search"}]), _gpt()),
        (_claude(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]), _claude()),
        (_gemini(tools=[{"googleSearch": {}}]), _gemini()),
    ):
        assert not found.bounded
        assert found.usd > plain.usd


UNSEEN: list[tuple[Any, dict[str, Any]]] = [
    (_gpt, {"previous_response_id": "resp_1"}),
    (_gpt, {"conversation": "conv_1"}),
    (_gpt, {"prompt": {"id": "p"}}),
    (_gpt, {"input": [{"type": "item_reference", "id": "1"}]}),
    (_gpt, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}),
    (_claude, {"container": "c"}),
    (_claude, {"mcp_servers": [{"url": "x"}]}),
    (_gemini, {"config": {"maxOutputTokens": 10, "cachedContent": "c"}}),
    (_gemini, {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]}),
    (_gemini, {"contents": object()}),
]


@pytest.mark.parametrize(("make", "params"), UNSEEN)
def test_what_the_provider_keeps_is_not_bounded(make: Any, params: dict[str, Any]) -> None:
    assert make().bounded
    assert not make(**params).bounded
