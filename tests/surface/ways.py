"""Every way of calling LiteLLM, each call of it worth exactly WORTH."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import litellm
from litellm import Router

from tests.hooks.desk import CHAT, EMBED, TEXT
from tests.surface.provider import SECONDS

WORTH = 12_500_000
_PER_TOKEN = 0.0125 / 1000

# Prices that LiteLLM does not have for these models: each call below costs $0.0125, as its bound and in fact.
MODELS: dict[str, dict[str, Any]] = {
    "anthropic/gate-claude": {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": _PER_TOKEN},
    "gemini/gate-gemini": {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": _PER_TOKEN},
    "hosted_vllm/gate-vllm": {"mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": _PER_TOKEN},
    "openai/gate-image": {"mode": "image_generation", "output_cost_per_image": 0.0125},
    "openai/gate-edit": {"mode": "image_edit", "output_cost_per_image": 0.0125},
    "openai/gate-speech": {"mode": "audio_speech", "input_cost_per_character": _PER_TOKEN},
    "openai/gate-transcription": {"mode": "audio_transcription", "input_cost_per_second": 0.0125 / SECONDS},
    "cohere/gate-rerank": {"mode": "rerank", "input_cost_per_query": 0.0125},
    "mistral/gate-ocr": {"mode": "ocr", "ocr_cost_per_page": 0.003125},
    "serper/search": {"mode": "search", "input_cost_per_query": 0.0125},
    "openai/gate-video": {"mode": "video_generation", "output_cost_per_video_per_second": 0.003125},
    "openai/gate-moderation": {"mode": "moderation", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
}


def register_models() -> None:
    """Register the models of this table with LiteLLM."""
    for name, entry in MODELS.items():
        litellm.register_model({name: {"litellm_provider": name.partition("/")[0], "max_tokens": 4096, **entry}})


def sound() -> io.BytesIO:
    """Return ten seconds of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(8000)
        written.writeframes(b"\0\0" * int(8000 * SECONDS))
    file.seek(0)
    file.name = "sound.wav"
    return file


def picture() -> io.BytesIO:
    """Return the beginning of a PNG."""
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(64))


_MESSAGES = [{"role": "user", "content": "x"}]
_CONTENTS = [{"role": "user", "parts": [{"text": "x"}]}]
_DOCUMENT = {"type": "document_url", "document_url": "http://x/a.pdf"}
_OPENAI = {"max_retries": 0}


@dataclass(frozen=True)
class Kind:
    """One family of calls at one provider: its functions and their arguments. `payer` names the argument that names the user."""

    name: str
    sync: Callable[..., Any] | None
    awaited: Callable[..., Any] | None
    model: str
    arguments: Callable[[], dict[str, Any]]
    stream: bool = False
    versioned: bool = True
    payer: str = "user"
    routed: tuple[str, ...] = ()


def _fields(**values: Any) -> Callable[[], dict[str, Any]]:
    return lambda: dict(values)


google = litellm.google_genai
_GENERATE = _fields(contents=_CONTENTS, config={"max_output_tokens": 1000})
KINDS = (
    Kind(
        "completion",
        litellm.completion,
        litellm.acompletion,
        CHAT,
        _fields(messages=_MESSAGES, max_tokens=1000, **_OPENAI),
        stream=True,
        routed=("completion", "acompletion"),
    ),
    Kind(
        "text_completion",
        litellm.text_completion,
        litellm.atext_completion,
        TEXT,
        _fields(prompt="x", max_tokens=1000, **_OPENAI),
        stream=True,
        routed=("atext_completion",),
    ),
    Kind(
        "embedding",
        litellm.embedding,
        litellm.aembedding,
        EMBED,
        _fields(input=[1] * 1000, **_OPENAI),
        routed=("embedding", "aembedding"),
    ),
    Kind(
        "responses",
        litellm.responses,
        litellm.aresponses,
        CHAT,
        _fields(input="x", max_output_tokens=1000, **_OPENAI),
        stream=True,
        routed=("responses", "aresponses"),
    ),
    Kind(
        "responses, served by chat",
        litellm.responses,
        litellm.aresponses,
        "hosted_vllm/gate-vllm",
        _fields(input="x", max_output_tokens=1000, **_OPENAI),
        stream=True,
    ),
    Kind(
        "completion, served by responses",
        litellm.completion,
        litellm.acompletion,
        "openai/responses/gate-chat",
        _fields(messages=_MESSAGES, max_tokens=1000, **_OPENAI),
        stream=True,
    ),
    Kind(
        "anthropic.messages",
        None,
        litellm.anthropic.messages.acreate,
        "anthropic/gate-claude",
        _fields(messages=_MESSAGES, max_tokens=1000),
        stream=True,
        versioned=False,
        payer="litellm_metadata",
        routed=("aanthropic_messages",),
    ),
    Kind(
        "anthropic.messages, served by chat",
        None,
        litellm.anthropic.messages.acreate,
        "hosted_vllm/gate-vllm",
        _fields(messages=_MESSAGES, max_tokens=1000),
        stream=True,
        payer="litellm_metadata",
    ),
    Kind(
        "generate_content",
        google.generate_content,
        google.agenerate_content,
        "gemini/gate-gemini",
        _GENERATE,
        versioned=False,
        payer="litellm_metadata",
        routed=("generate_content", "agenerate_content"),
    ),
    Kind(
        "generate_content_stream",
        google.generate_content_stream,
        google.agenerate_content_stream,
        "gemini/gate-gemini",
        _GENERATE,
        stream=True,
        versioned=False,
        payer="litellm_metadata",
    ),
    Kind(
        "generate_content, served by chat",
        google.generate_content,
        google.agenerate_content,
        "hosted_vllm/gate-vllm",
        # LiteLLM passes the limit on only under this name.
        _fields(contents=_CONTENTS, config={"maxOutputTokens": 1000}),
        payer="litellm_metadata",
    ),
    Kind(
        "image_generation",
        litellm.image_generation,
        litellm.aimage_generation,
        "openai/gate-image",
        _fields(prompt="a cat", **_OPENAI),
        routed=("image_generation", "aimage_generation"),
    ),
    Kind(
        "image_edit",
        litellm.image_edit,
        litellm.aimage_edit,
        "openai/gate-edit",
        lambda: {"image": picture(), "prompt": "a cat", "size": "1024x1024", **_OPENAI},
        routed=("aimage_edit",),
    ),
    Kind(
        "image_variation",
        litellm.image_variation,
        litellm.aimage_variation,
        "openai/gate-image",
        lambda: {"image": picture(), **_OPENAI},
    ),
    Kind(
        "speech",
        litellm.speech,
        litellm.aspeech,
        "openai/gate-speech",
        _fields(input="x" * 1000, voice="alloy", **_OPENAI),
        payer="litellm_metadata",
        routed=("aspeech",),
    ),
    Kind(
        "transcription",
        litellm.transcription,
        litellm.atranscription,
        "openai/gate-transcription",
        lambda: {"file": sound(), **_OPENAI},
        routed=("atranscription",),
    ),
    Kind(
        "rerank",
        litellm.rerank,
        litellm.arerank,
        "cohere/gate-rerank",
        _fields(query="x", documents=["a", "b"]),
        versioned=False,
        payer="litellm_metadata",
        routed=("arerank",),
    ),
    Kind(
        "ocr",
        litellm.ocr,
        litellm.aocr,
        "mistral/gate-ocr",
        _fields(document=_DOCUMENT, pages=[0, 1, 2, 3]),
        payer="litellm_metadata",
        routed=("aocr",),
    ),
    Kind(
        "search",
        litellm.search,
        litellm.asearch,
        "",
        _fields(query="x", search_provider="serper"),
        versioned=False,
        payer="litellm_metadata",
    ),
    Kind(
        "video_generation",
        litellm.video_generation,
        litellm.avideo_generation,
        "openai/gate-video",
        _fields(prompt="a cat", seconds="4", **_OPENAI),
        payer="litellm_metadata",
        routed=("avideo_generation",),
    ),
)


@dataclass(frozen=True)
class Place:
    """The target of calls: the provider's address, and its behaviour instead of an answer."""

    url: str
    act: str = ""

    def base(self, kind: Kind) -> str:
        """Return the `api_base` of a call of this kind."""
        url = self.url if kind.versioned else self.url.removesuffix("/v1")
        host, _, version = url.removeprefix("http://").partition("/")
        return "/".join(["http:/", host, *([f"do-{self.act}"] if self.act else []), *([version] if version else [])])


@dataclass(frozen=True)
class Way:
    """One way of calling. `start` makes the call, `awaited` says whether it must be awaited, `streams` whether its answer is a
    stream.

    `refusal` is how a refusal reaches the caller: it is "raised", or "in the list" that is the answer, or LiteLLM leaves the
    call "out of the list".
    """

    name: str
    kind: Kind
    start: Callable[[Place, str], Any]
    awaited: bool = False
    streams: bool = False
    refusal: str = "raised"

    def call(self, place: Place, user: str, *, most: int | None = None) -> Any:
        """Make a call. Return the answer, for a stream all chunks or only the first `most`, after which it is dropped."""
        if self.awaited:
            return asyncio.run(self.acall(place, user, most=most))
        answer = self.start(place, user)
        if not self.streams:
            return answer
        return [chunk for chunk, _ in zip(answer, range(10**6 if most is None else most))]

    async def acall(self, place: Place, user: str, *, most: int | None = None) -> Any:
        """Make a call like `call`, on a running loop."""
        answer = await self.start(place, user)
        if not self.streams:
            return answer
        read: list[Any] = []
        async for chunk in answer:
            read.append(chunk)
            if len(read) == most:
                break
        return read


def arguments(kind: Kind, place: Place, user: str) -> dict[str, Any]:
    """Return the arguments of a call of this kind by `user`."""
    payer = {"user": user} if kind.payer == "user" else {kind.payer: {"budget_user": user}}
    model = {"model": kind.model} if kind.model else {}
    return {**model, **kind.arguments(), "api_base": place.base(kind), "api_key": "sk-test", **payer}


def _direct(kind: Kind, function: Callable[..., Any], *, stream: bool) -> Callable[[Place, str], Any]:
    streaming = {"stream": True} if stream and not kind.name.endswith("_stream") else {}
    return lambda place, user: function(**arguments(kind, place, user), **streaming)


def _routed(kind: Kind, method: str, *, stream: bool) -> Callable[[Place, str], Any]:
    def start(place: Place, user: str) -> Any:
        given = arguments(kind, place, user)
        for name in _DEPLOYED:
            given.pop(name, None)
        return getattr(_router(kind, place), method)(model="group", **given, **({"stream": True} if stream else {}))

    return start


_DEPLOYED = ("model", "api_base", "api_key", "max_retries")


@lru_cache(maxsize=256)
def _router(kind: Kind, place: Place) -> Router:
    """Return a Router with one deployment. It is cached: LiteLLM never frees a Router, and a service also keeps its Router."""
    given = arguments(kind, place, "nobody")
    params = {name: given[name] for name in _DEPLOYED if name in given}
    deployments = [{"model_name": "group", "litellm_params": params}]
    return Router(model_list=deployments, num_retries=0, disable_cooldowns=True)


def _several(kind: Kind) -> list[Way]:
    """Return functions that make several calls of one kind; here each makes one."""

    def batch(place: Place, user: str) -> Any:
        given = arguments(kind, place, user)
        return litellm.batch_completion(**{**given, "messages": [given["messages"]]})

    def models(place: Place, user: str) -> Any:
        given = arguments(kind, place, user)
        return litellm.batch_completion_models(models=[given.pop("model")], **given)

    def all_models(place: Place, user: str) -> Any:
        given = arguments(kind, place, user)
        return litellm.batch_completion_models_all_responses(models=[given.pop("model")], **given)

    def retried(place: Place, user: str) -> Any:
        return litellm.completion_with_retries(**arguments(kind, place, user))

    return [
        Way("batch_completion", kind, batch, refusal="in the list"),
        Way("batch_completion_models", kind, models),
        Way("batch_completion_models_all_responses", kind, all_models, refusal="out of the list"),
        Way("completion_with_retries", kind, retried),
    ]


def _ways() -> list[Way]:
    found = []
    for kind in KINDS:
        only_streams = kind.name.endswith("_stream")
        for stream in (True,) if only_streams else (False, True) if kind.stream else (False,):
            suffix = ", stream" if stream and not only_streams else ""
            for function, awaited in ((kind.sync, False), (kind.awaited, True)):
                if function is not None:
                    name = kind.name if not awaited or kind.sync is None else f"a{kind.name}"
                    found.append(Way(name + suffix, kind, _direct(kind, function, stream=stream), awaited, stream))
            for method in kind.routed:
                if not (stream and method == "responses"):
                    start = _routed(kind, method, stream=stream)
                    found.append(Way(f"Router.{method}{suffix}", kind, start, method.startswith("a"), stream))
    return found + _several(KINDS[0])


WAYS = _ways()
