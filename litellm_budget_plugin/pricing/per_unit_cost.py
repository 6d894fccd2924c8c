"""What an answer did cost that is billed in other units than tokens of text: by LiteLLM's calculators, else as a lost one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.pricing.bound import estimate
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.litellm_cost import answer_cost
from litellm_budget_plugin.pricing.tokens import probable
from litellm_budget_plugin.pricing.usage import field
from litellm_budget_plugin.pricing.values import Request

_IMAGES = ("image_generation", "image_edit", "image_variation")
FAMILIES = frozenset({*_IMAGES, "speech", "transcription", "rerank", "ocr", "search", "video_generation", "moderation"})
_CALL_TYPES = {"image_variation": "image_generation", "video_generation": "create_video"}


def cost(request: Request, name: str, answer: object) -> tuple[int | None, bool]:
    """(nano-dollars, whether they are an estimate) of an answer of these families, which names the model `name`; of None, or
    of an answer that LiteLLM cannot price, those of a request that was served and whose answer is lost. Never raises.
    """
    if request.call_type == "moderation":
        return 0, False
    with suppress(Exception):
        found = None if answer is None else _by_litellm(request, name, answer)
        if found:
            return found, False
    lost = estimate(request, output_allowance=0, unbounded_hold=0)
    return lost.floor if lost.priced else None, lost.floor > 0


def _by_litellm(request: Request, name: str, answer: object) -> int | None:
    params = request.params
    asked: dict[str, Any] = {}
    if request.call_type == "speech":
        text = params.get("input")
        if not isinstance(text, str):
            return None
        asked = {"prompt": text, "usage": {"prompt_tokens": probable(text)}}
    # What the answer says of itself comes before what was asked for.
    for option in ("size", "quality"):
        chosen: Any = None if field(answer, option) else params.get(option)
        asked[option] = chosen if isinstance(chosen, str) and chosen != "auto" else None
    options: dict[str, Any] = {
        option: value for option, value in params.items() if isinstance(value, (str, int, float))
    }
    if request.call_type == "search":
        options["query"] = params.get("query")
    return answer_cost(
        price_key(request),
        _litellm_object(request, dict(answer)) if isinstance(answer, Mapping) else answer,
        call_type=_CALL_TYPES.get(request.call_type, request.call_type),
        answered=name,
        optional_params=options,
        **asked,
    )


def _litellm_object(request: Request, answer: dict[str, Any]) -> Any:
    """The answer as LiteLLM's own class, which alone its calculator prices."""
    import litellm

    call_type = request.call_type
    if call_type in _IMAGES:
        return litellm.ImageResponse(**answer)
    if call_type == "rerank":
        from litellm.types.rerank import RerankResponse

        return RerankResponse(**answer)
    if call_type == "ocr":
        from litellm.llms.base_llm.ocr.transformation import OCRResponse

        return OCRResponse(**{"pages": [], "model": request.model, **answer})
    if call_type == "video_generation":
        from litellm.types.videos.main import VideoObject

        return VideoObject(**{"id": "", "object": "video", "status": "", **answer})
    return _transcription(answer) if call_type == "transcription" else answer


def _transcription(answer: dict[str, Any]) -> Any:
    import litellm
    from litellm.types.utils import TranscriptionUsageTokensObject

    made: Any = litellm.TranscriptionResponse(text=answer.get("text"))
    usage = answer.get("usage")
    if isinstance(usage, Mapping) and usage.get("type") == "tokens":
        made.usage = TranscriptionUsageTokensObject(**usage)
    for value in (answer.get("duration"), field(usage, "seconds")):
        with suppress(TypeError, ValueError):
            if value is not None and 0 < float(value) < 10**9:
                made.duration = float(value)
                break
    return made
