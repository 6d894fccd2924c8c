"""Requests of every family, and answers within what they ask for, drawn by hypothesis and at their exact limits."""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import httpx
import litellm
from hypothesis import strategies as st
from litellm.llms.base_llm.ocr.transformation import OCRResponse
from litellm.types.llms.openai import HttpxBinaryResponseContent, ResponsesAPIResponse
from litellm.types.rerank import RerankResponse
from litellm.types.utils import (
    CompletionTokensDetailsWrapper,
    PromptTokensDetailsWrapper,
    TranscriptionUsageTokensObject,
    Usage,
)
from litellm.types.videos.main import VideoObject

from litellm_budget_plugin.pricing import Request
from litellm_budget_plugin.pricing.cost_map import ASKS_NETWORK, route

Draw = Callable[[st.SearchStrategy[Any]], Any]
EVERY_FAMILY = [
    "completion", "text_completion", "embedding", "responses", "messages", "generate_content", "image_generation",
    "image_edit", "image_variation", "speech", "transcription", "rerank", "ocr", "search", "video_generation", "moderation",
    "realtime", "unheard_of",
]  # fmt: skip
SIZES = [None, "auto", "256x256", "1024x1024", "1024x1536", "1536x1024", "1792x1024", "1024x1792", "2048x2048"]
QUALITIES = [None, "auto", "standard", "hd", "low", "medium", "high"]
RESOLUTIONS = [None, "480p", "720p", "768p", "1080p", "2k", "4k"]
# OpenAI, "Image generation": tokens of one image by quality, for a square, a portrait and a landscape.
IMAGE_TOKENS = {"low": (272, 408, 400), "medium": (1056, 1584, 1568), "high": (4160, 6240, 6208)}
_COLUMNS = {"1024x1024": 0, "1024x1536": 1, "1536x1024": 2}


class Case(NamedTuple):
    """A request, its answer, and the way to ask LiteLLM for the price of the answer."""

    request: Request
    answer: Any
    call_type: str
    options: dict[str, Any]


@cache
def models_of(mode: str) -> list[str]:
    """Return every model of the cost map in this mode that LiteLLM prices without using the network."""
    return sorted(
        {
            _called(name, entry)
            for name, entry in litellm.model_cost.items()
            if entry.get("mode") == mode and entry.get("litellm_provider") not in ASKS_NETWORK
        }
    )


def _called(name: str, entry: dict[str, Any]) -> str:
    """Return the name to call a model by. The entry of one size, "azure/hd/1024-x-1024/dall-e-3", is not a name to
    call.
    """
    found = re.search(r"(?:^|/)\d+-x-\d+/(?:(?:\d+|max)-steps/)?(.+)$", name)
    if found is None:
        return name
    provider = entry["litellm_provider"]
    return f"{provider}/{found[1].removeprefix(f'{provider}/')}"


def largest(strategy: Any) -> Any:
    """Draw the largest number and the last choice: the answer at the limit of the request."""
    if hasattr(strategy, "wrapped_strategy"):
        strategy = strategy.wrapped_strategy
    return strategy.end if hasattr(strategy, "end") else strategy.elements[-1]


def writes_caches(model: str) -> bool:
    """Return whether a provider may write a cache without being asked. Claude's providers do not."""
    return "claude" not in model


def _usage(draw: Draw, model: str, read: int, wrote: int) -> Usage:
    cached, written = draw(st.integers(0, read)), draw(st.integers(0, read if writes_caches(model) else 0))
    cached = min(cached, read - written) if cached + written > read else cached
    return Usage(
        prompt_tokens=read,
        completion_tokens=wrote,
        total_tokens=read + wrote,
        prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=cached, cache_creation_tokens=written),
        completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=draw(st.integers(0, wrote))),
    )


def _tokens(draw: Draw) -> tuple[int, int, int]:
    size = draw(st.sampled_from([10, 3_000, 130_000, 210_000, 280_000, 600_000]))
    limit = draw(st.integers(1, 20_000))
    return size, limit, draw(st.integers(1, size))


def responses(draw: Draw, model: str) -> Case:
    size, limit, read = _tokens(draw)
    request = Request("responses", model, None, {"input": "x" * size, "max_output_tokens": limit})
    wrote, cached = draw(st.integers(0, limit)), draw(st.integers(0, read))
    usage = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": wrote,
        "output_tokens_details": {"reasoning_tokens": draw(st.integers(0, wrote))},
        "total_tokens": read + wrote,
    }
    answer = ResponsesAPIResponse(
        id="1",
        created_at=1,
        model=model,
        output=[],
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
        usage=usage,
    )
    return Case(request, answer, "responses", {})


def messages(draw: Draw, model: str) -> Case:
    size, limit, read = _tokens(draw)
    params = {"messages": [{"role": "user", "content": "x" * size}], "max_tokens": limit}
    asks = draw(st.sampled_from([False, True]))
    if asks:
        params["cache_control"] = {"type": "ephemeral"}
    written = draw(st.integers(0, read if asks or writes_caches(model) else 0))
    usage = {
        "input_tokens": read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": 0,
        "output_tokens": draw(st.integers(0, limit)),
    }
    return Case(Request("messages", model, None, params), {"model": model, "usage": usage}, "anthropic_messages", {})


def generate_content(draw: Draw, model: str) -> Case:
    size, limit, read = _tokens(draw)
    copies = draw(st.integers(1, 3))
    config = {"maxOutputTokens": limit, "candidateCount": copies}
    request = Request("generate_content", model, None, {"contents": "x" * size, "config": config})
    answer = litellm.ModelResponse(model=model, usage=_usage(draw, model, read, draw(st.integers(0, limit * copies))))
    return Case(request, answer, "generate_content", {})


def _image(draw: Draw, model: str, call_type: str) -> Case:
    copies = draw(st.integers(1, 4))
    params: dict[str, Any] = {"prompt": "x" * draw(st.integers(1, 2000)), "n": copies}
    params["size"], params["quality"] = draw(st.sampled_from(SIZES)), draw(st.sampled_from(QUALITIES))
    if call_type == "image_edit":
        params["image"] = [b"x"] * draw(st.integers(1, 3))
    made = draw(st.integers(0, copies))
    # The provider decides what a request leaves open, and reports it.
    quality = params["quality"] if params["quality"] not in (None, "auto") else draw(st.sampled_from(QUALITIES[4:]))
    size = params["size"] if params["size"] not in (None, "auto") else draw(st.sampled_from(list(_COLUMNS)))
    answer: dict[str, Any] = {"created": 1, "data": [{"url": "x"}] * made}
    if "gpt-image" in model:
        answer |= {"size": size, "quality": quality}
        rows = IMAGE_TOKENS.get(quality, IMAGE_TOKENS["high"])
        wrote = made * (rows[_COLUMNS[size]] if size in _COLUMNS else max(rows))
        given = len(params.get("image", ())) * 1000
        text = draw(st.integers(0, len(params["prompt"])))
        answer["usage"] = {
            "input_tokens": text + given,
            "input_tokens_details": {"text_tokens": text, "image_tokens": given},
            "output_tokens": wrote,
            "total_tokens": text + given + wrote,
        }
    sent = {name: value for name, value in params.items() if name in ("size", "quality") and value is not None}
    options = {"optional_params": sent}
    return Case(Request(call_type, model, None, params), litellm.ImageResponse(**answer), call_type, options)


def image_generation(draw: Draw, model: str) -> Case:
    return _image(draw, model, "image_generation")


def image_edit(draw: Draw, model: str) -> Case:
    return _image(draw, model, "image_edit")


def speech(draw: Draw, model: str) -> Case:
    text = "word " * draw(st.integers(1, 800))
    answer = HttpxBinaryResponseContent(httpx.Response(200, content=b"x"))
    return Case(Request("speech", model, None, {"input": text, "voice": "x"}), answer, "speech", {"prompt": text})


def wav(seconds: int, rate: int = 16_000) -> bytes:
    """Return a WAV file of this length with 16-bit samples. A long one has only its header."""
    size = seconds * rate * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", size
    )
    return head + bytes(size)


def mp3(seconds: int, kilobits: int) -> bytes:
    """Return data with the size and the mark of an MP3 file."""
    return b"\xff\xfb" + bytes(seconds * kilobits * 125)


def transcription(draw: Draw, model: str) -> Case:
    seconds = draw(st.integers(1, 60))
    file = draw(st.sampled_from([wav(seconds), mp3(seconds, 32), mp3(seconds, 8)]))
    answer = litellm.TranscriptionResponse(text="x")
    answer.duration = float(seconds)
    entry = litellm.model_cost[model]
    if entry.get("input_cost_per_token") and draw(st.sampled_from([False, True])):
        wrote = draw(st.integers(0, min(entry.get("max_output_tokens") or 2000, seconds * 20)))
        details = {"text_tokens": 0, "audio_tokens": seconds * 10}
        answer.usage = TranscriptionUsageTokensObject(
            type="tokens",
            input_tokens=seconds * 10,
            input_token_details=details,
            output_tokens=wrote,
            total_tokens=seconds * 10 + wrote,
        )
    return Case(Request("transcription", model, None, {"file": file}), answer, "transcription", {})


def rerank(draw: Draw, model: str) -> Case:
    length, number = draw(st.integers(1, 6000)), draw(st.integers(1, 150))
    query = draw(st.integers(1, 200))
    params = {"query": "x" * query, "documents": ["x" * length] * number}
    # A token has at least one byte. 500 of them, with those of the query, are one document, and 100 documents are one
    # unit.
    tokens = draw(st.integers(1, length))
    pieces = number * max(1, -(-tokens // (500 - query)))
    billed = {"search_units": -(-pieces // 100), "total_tokens": (tokens + query) * number}
    answer = RerankResponse(id="1", results=[], meta={"billed_units": billed})
    return Case(Request("rerank", model, None, params), answer, "rerank", {})


def pdf(pages: int) -> bytes:
    """Return the page tree of a PDF."""
    kids = b"".join(b"%d 0 obj\n<< /Type /Page /Parent 2 0 R >>\nendobj\n" % (number + 3) for number in range(pages))
    return b"%%PDF-1.4\n2 0 obj\n<< /Type /Pages /Count %d >>\nendobj\n%s%%%%EOF" % (pages, kids)


def ocr(draw: Draw, model: str) -> Case:
    pages = draw(st.integers(1, 30))
    url = "data:application/pdf;base64," + base64.b64encode(pdf(pages)).decode()
    params: dict[str, Any] = {"document": {"type": "document_url", "document_url": url}}
    read = draw(st.integers(0, pages))
    info: dict[str, Any] = {"pages_processed": read}
    if draw(st.sampled_from([False, True])):
        params["document_annotation_format"] = {"type": "json_schema"}
        info["pages_processed_annotation"] = read
    return Case(Request("ocr", model, None, params), OCRResponse(pages=[], model=model, usage_info=info), "ocr", {})


def search(draw: Draw, model: str) -> Case:
    query = ["x"] * draw(st.integers(1, 4))
    params: dict[str, Any] = {"query": query}
    results = draw(st.sampled_from([None, 5, 26, 60, 100]))
    if results:
        params["max_results"] = results
    return Case(Request("search", model, None, params), None, "search", {"optional_params": params})


def video_generation(draw: Draw, model: str) -> Case:
    seconds, copies = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    params = {"prompt": "x", "seconds": str(seconds), "sampleCount": copies}
    usage: dict[str, Any] = {"duration_seconds": float(seconds), "video_count": copies}
    usage["video_resolution"] = draw(st.sampled_from(RESOLUTIONS))
    answer = VideoObject(id="x", object="video", status="queued", usage=usage)
    return Case(Request("video_generation", model, None, params), answer, "create_video", {})


def moderation(draw: Draw, model: str) -> Case:
    request = Request("moderation", model, None, {"input": "x" * draw(st.integers(1, 99))})
    answer = litellm.ModelResponse(model=model, usage=Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0))
    return Case(request, answer, "moderation", {})


def realtime(draw: Draw, model: str) -> Case:
    usage = _usage(draw, model, draw(st.integers(1, 10_000)), draw(st.integers(0, 10_000)))
    answer = litellm.ModelResponse(model=model, usage=usage)
    return Case(Request("realtime", model, None, {}), answer, "completion", {})


FAMILIES: dict[str, tuple[str, Callable[[Draw, str], Case]]] = {
    "responses": ("responses", responses),
    "responses of chat models": ("chat", responses),
    "messages": ("chat", messages),
    "generate_content": ("chat", generate_content),
    "image_generation": ("image_generation", image_generation),
    "image_edit": ("image_edit", image_edit),
    "image_edit of generating models": ("image_generation", image_edit),
    "speech": ("audio_speech", speech),
    "transcription": ("audio_transcription", transcription),
    "rerank": ("rerank", rerank),
    "ocr": ("ocr", ocr),
    "search": ("search", search),
    "video_generation": ("video_generation", video_generation),
    "moderation": ("moderation", moderation),
    "realtime": ("realtime", realtime),
}


def charged(case: Case) -> float | None:
    """Return LiteLLM's own price of the answer in USD; None if it has none."""
    model = case.request.model
    # Names of vanished providers (anyscale) are in the map, but completion_cost cannot price them.
    try:
        return float(
            litellm.completion_cost(
                case.answer,
                model=model,
                custom_llm_provider=route(model, None)[1],
                call_type=case.call_type,
                **case.options,
            )
        )
    except Exception:  # LiteLLM raises plain Exception for what it cannot price
        return None
