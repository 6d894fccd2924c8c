"""`estimate`: the most that a call may cost, and its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from litellm_budget_plugin.pricing import audio, chat, documents, images, search, sessions, video
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.terms import Terms, terms_of
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

_FAMILIES: dict[str, Callable[[Request, Terms, Options], Estimate]] = {
    "image_generation": images.estimate,
    "image_edit": images.estimate,
    "image_variation": images.estimate,
    "speech": audio.estimate_speech,
    "transcription": audio.estimate_transcription,
    "rerank": search.estimate_rerank,
    "search": search.estimate_search,
    "ocr": documents.estimate,
    "video_generation": video.estimate,
    "moderation": sessions.estimate_moderation,
    "realtime": sessions.estimate_realtime,
}


def estimate(request: Request, *, output_allowance: int, unbounded_hold: int, exact: bool = False) -> Estimate:
    """What this call may cost at most. Never raises for a weird request, and never touches the network.

    `output_allowance` is the number of output tokens of a call that states no limit. `unbounded_hold`, in nano-dollars, is
    the least that is held for a call whose quantity cannot be known before it has run: there is no number to compute then,
    and it is never `bounded`. `exact` counts the text of models that cl100k_base really encodes (see `tokens`) instead of
    bounding it by its bytes.
    """
    params = request.params
    terms = terms_of(price_key(request), params.get("service_tier"), params.get("speed"))
    family = _FAMILIES.get(request.call_type, chat.estimate)
    return family(request, terms, Options(output_allowance, unbounded_hold, exact))


def dearest(estimates: Iterable[Estimate]) -> Estimate:
    """The largest of several estimates. Those without a price count for nothing, unless there are no others; of no
    estimates at all, nothing.
    """
    nothing = Estimate(0, 0, 0, 0, priced=True, bounded=False, loose=False)
    return max(estimates, key=lambda estimate: (estimate.priced, estimate.usd), default=nothing)
