"""What an answer did cost that is billed in other units than tokens of text: by LiteLLM, else by what it contains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.pricing import audio, documents, images, search, video
from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.cost_map import PriceKey, find_key, price_key
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, round_half_even
from litellm_budget_plugin.pricing.terms import Terms, terms_of
from litellm_budget_plugin.pricing.usage import Counted, field
from litellm_budget_plugin.pricing.values import Cost, Options, Request

_CALL_TYPES = {"image_variation": "image_generation", "video_generation": "create_video"}


def cost(request: Request, name: str, answer: object, usage: Counted | None) -> Cost:
    """The cost of an answer of these families; without one, of a request that was served and whose answer is lost.

    LiteLLM's calculator comes first, unless the caller gave prices, which it sees only in a Router. What it cannot price, or
    prices at nothing for want of a quantity, is reckoned by the quantities that the answer shows, or else as lost.
    """
    read, wrote = (usage.input, usage.output) if usage else (0, 0)
    if request.call_type == "moderation":
        return Cost(0, name, read, wrote, estimated=False)
    selector = price_key(request)
    terms = terms_of(selector, request.params.get("service_tier"))
    if answer is not None:
        found = (
            None if selector.custom or request.call_type == "speech" else _by_litellm(request, selector, name, answer)
        )
        found = found or _reckoned(request, terms, answer)
        if found:
            return Cost(found, name, read, wrote, estimated=False)
    lost = estimate(request, output_allowance=0, unbounded_hold=0)
    return Cost(lost.floor if lost.priced else None, name, read, wrote, estimated=lost.floor > 0)


def _by_litellm(request: Request, selector: PriceKey, name: str, answer: object) -> int | None:
    terms = terms_of(selector)
    answered = None if selector.base_model else find_key(name, terms.provider, selector.call_type)
    for model in dict.fromkeys((answered, terms.key, terms.base)):
        with suppress(Exception):
            found = _calculate(request, model, terms, answer) if model else None
            if found:
                return found
    return None


def _calculate(request: Request, model: str, terms: Terms, answer: object) -> int:
    import litellm

    params = request.params
    size, quality = params.get("size"), params.get("quality")
    options: dict[str, Any] = {name: value for name, value in params.items() if isinstance(value, (str, int, float))}
    if request.call_type == "search":
        options["query"] = params.get("query")
    usd = litellm.completion_cost(
        completion_response=_object(request.call_type, answer),
        model=model,
        custom_llm_provider=terms.provider,
        call_type=_CALL_TYPES.get(request.call_type, request.call_type),
        optional_params=options,
        # What the answer says of itself comes before what was asked for.
        size=None if field(answer, "size") else size if isinstance(size, str) and size != "auto" else None,
        quality=None
        if field(answer, "quality")
        else quality
        if isinstance(quality, str) and quality != "auto"
        else None,
    )
    return charge_nanos(usd)


def _object(call_type: str, answer: object) -> Any:
    """The answer as LiteLLM's own class, which alone its calculator prices."""
    if not isinstance(answer, Mapping):
        return answer
    return _made(call_type, dict(answer))


def _made(call_type: str, answer: dict[str, Any]) -> Any:
    import litellm

    if call_type.startswith("image"):
        return litellm.ImageResponse(**answer)
    if call_type == "rerank":
        from litellm.types.rerank import RerankResponse

        return RerankResponse(**answer)
    if call_type == "ocr":
        from litellm.llms.base_llm.ocr.transformation import OCRResponse

        return OCRResponse(**{"pages": [], "model": "", **answer})
    if call_type == "video_generation":
        from litellm.types.videos.main import VideoObject

        return VideoObject(**{"id": "", "object": "video", "status": "", **answer})
    if call_type == "transcription":
        return _transcription(answer)
    return answer


def _transcription(answer: dict[str, Any]) -> Any:
    import litellm
    from litellm.types.utils import TranscriptionUsageTokensObject

    made = litellm.TranscriptionResponse(text=answer.get("text"))
    usage = answer.get("usage")
    if isinstance(usage, Mapping) and usage.get("type") == "tokens":
        made.usage = TranscriptionUsageTokensObject(**usage)
    made.duration = seconds_heard(answer) or 0.0
    return made


def seconds_heard(answer: object) -> float | None:
    """The seconds of sound that a transcript says it is made of."""
    hidden = field(field(answer, "_hidden_params"), "audio_transcription_duration")
    for value in (hidden, field(answer, "duration"), field(field(answer, "usage"), "seconds")):
        with suppress(TypeError, ValueError):
            if value is not None and 0 < float(value) < 10**9:
                return float(value)
    return None


def _reckoned(request: Request, terms: Terms, answer: object) -> int | None:
    """Nano-dollars by the quantities that an answer shows; None where it shows none."""
    reckon = _RECKON.get(request.call_type)
    if reckon is None or not terms.priced:
        return None
    with suppress(Exception):
        amount = reckon(request, terms, answer)
        return None if amount is None else round_half_even(amount + terms.fixed)
    return None


def _images(request: Request, terms: Terms, answer: object) -> int | None:
    data = field(answer, "data")
    if not isinstance(data, (list, tuple)) or not data:
        return None
    said = {name: field(answer, name) for name in ("size", "quality") if field(answer, name)}
    made = replace(request, params={**request.params, **said, "n": len(data)})
    return images.estimate(made, terms, Options(0, 0)).floor * ATTOS_PER_NANO


def _video(request: Request, terms: Terms, answer: object) -> int | None:
    seconds = field(field(answer, "usage"), "duration_seconds") or field(answer, "seconds")
    if not seconds:
        return None
    return video.estimate(replace(request, params={"seconds": seconds}), terms, Options(0, 0)).floor * ATTOS_PER_NANO


_RECKON: dict[str, Callable[[Request, Terms, object], int | None]] = {
    "image_generation": _images,
    "image_edit": _images,
    "image_variation": _images,
    "video_generation": _video,
    "speech": lambda request, terms, _: audio.spoken(request.params, terms),
    "transcription": lambda _, terms, answer: audio.heard(seconds_heard(answer), terms),
    "rerank": lambda _, terms, answer: search.reranked(answer, terms),
    "ocr": lambda _, terms, answer: documents.read(answer, terms),
}
