"""`estimate`: the most that a call may cost, and its floor; `estimate_sent`: that of the body that LiteLLM is about to send."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from litellm_budget_plugin.pricing import audio, chat, documents, images, search, unit_estimate
from litellm_budget_plugin.pricing.arguments import is_free, unknown_arguments
from litellm_budget_plugin.pricing.cost_map import price_key, route
from litellm_budget_plugin.pricing.price_sheet import PriceSheet, price_sheet
from litellm_budget_plugin.pricing.rates import BY_TOKENS
from litellm_budget_plugin.pricing.scan import Scan, scan
from litellm_budget_plugin.pricing.values import Covered, Estimate, Options, Request

_FAMILIES: dict[str, Callable[[Request, PriceSheet, Options], Estimate]] = {
    "image_generation": images.estimate,
    "image_edit": images.estimate,
    "image_variation": images.estimate,
    "speech": audio.estimate_speech,
    "transcription": audio.estimate_transcription,
    "rerank": search.estimate_rerank,
    "search": search.estimate_search,
    "ocr": documents.estimate,
    "video_generation": unit_estimate.estimate_video,
    "moderation": unit_estimate.estimate_moderation,
    "realtime": unit_estimate.estimate_realtime,
}


def estimate(request: Request, *, output_allowance: int, unbounded_hold: int, exact: bool = False) -> Estimate:
    """What this call may cost at most. Never raises for a weird request, and never touches the network.

    `output_allowance` is the number of output tokens of a call that states no limit. `unbounded_hold`, in nano-dollars, is
    the least that is held for a call whose quantity cannot be known before it has run: there is no number to compute then,
    and it is never `bounded`. A call type without an estimate of its own is held with it, and charged it when its answer
    is lost. `exact` counts the text of models that cl100k_base really encodes (see `tokens`) instead of
    bounding it by its bytes.
    """
    options = Options(output_allowance, unbounded_hold, exact)
    if request.call_type in BY_TOKENS:
        return chat.estimate(request, _sheet(request), options)
    family = _FAMILIES.get(request.call_type)
    if family is None:
        return Estimate(unbounded_hold, unbounded_hold, 0, 0, priced=True, bounded=False, loose=False)
    return family(
        request, _sheet(request), options._replace(unknown=unknown_arguments(request.call_type, request.params))
    )


def _sheet(request: Request) -> PriceSheet:
    params, body = request.params, request.params.get("extra_body")
    # What stands in extra_body is sent in place of the argument.
    said = {**params, **body} if isinstance(body, Mapping) else params
    return price_sheet(price_key(request), said.get("service_tier"), said.get("speed"))


def estimate_sent(
    request: Request, body: object, held: Estimate, *, output_allowance: int, unbounded_hold: int
) -> Estimate:
    """What this call may cost at most, now that the body is known which LiteLLM is about to send.

    `body` is a dictionary in the provider's own format, its JSON, or anything else. `held` is what was held for: it is
    returned itself where it covers the body, and else a larger estimate, which is not `bounded`. Never raises.
    """
    if request.call_type not in BY_TOKENS:
        return held
    sent, limited = scan_body(body, price_key(request).provider or route(request.model, None)[1])
    lost = held.covered is not None and held.covered.stated and held.covered.choices and not limited
    if held.covered is not None and not lost and covers(held.covered, sent):
        return held
    sheet = _sheet(request)
    if lost:
        # A limit that LiteLLM does not hand on limits nothing: the answer can be as long as the model writes.
        sent.unlimited, sent.limit = True, max(sent.limit, sheet.max_output or 0)
    found = chat.estimate(request, sheet, Options(output_allowance, unbounded_hold), sent)
    return replace(found, usd=max(found.usd, held.usd), tokens=max(found.tokens, held.tokens), loose=False)


def dearest(estimates: Iterable[Estimate]) -> Estimate:
    """The largest of several estimates. Those without a price count for nothing, unless there are no others; of no
    estimates at all, nothing.
    """
    nothing = Estimate(0, 0, 0, 0, priced=True, bounded=False, loose=False)
    return max(estimates, key=lambda estimate: (estimate.priced, estimate.usd), default=nothing)


# Names of the versions, models and options of an API that stand beside the text.
_OPTIONS = 512


# Where a format has one place for its limits: elsewhere, or under another name, the provider obeys none.
_LIMITS_IN = {
    "generationConfig": ("maxOutputTokens", "max_output_tokens"),
    "generation_config": ("maxOutputTokens", "max_output_tokens"),
    "inferenceConfig": ("maxTokens",),
}


_OF_PROVIDER = {"ollama": {"options": ("num_predict",)}, "ollama_chat": {"options": ("num_predict",)}}


def scan_body(given: object, provider: str | None) -> tuple[Scan, bool]:
    """What a body holds, in any provider's format: a dictionary, its JSON as text or bytes, or anything; and whether it is a
    request that limits its output.
    """
    body: Any = _parsed(given)
    sent = scan(body, skip=is_free)
    limited = bool(sent.limit or sent.thinking or not sent.readable or not sent.text)
    for place, names in _OF_PROVIDER.get(provider or "", _LIMITS_IN).items() if isinstance(body, Mapping) else ():
        inside = body.get(place)
        if isinstance(inside, Mapping) or provider in _OF_PROVIDER:
            limited = isinstance(inside, Mapping) and any(inside.get(name) is not None for name in names)
    return sent, limited


def _parsed(body: object) -> Any:
    if isinstance(body, (bytes, bytearray)):
        body = bytes(body).decode("utf-8", "surrogateescape")
    if isinstance(body, str) and body.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body
    return body


def covers(held: Covered, sent: Scan) -> bool:
    """Whether an estimate that counted this much covers the body."""
    if sent.text > held.text + _OPTIONS or sent.media > held.media or (sent.caches and not held.caches):
        return False
    if held.stated and sent.unlimited:
        return False
    # Where a limit is sent, a budget of tokens to think with lies inside it.
    limit = sent.limit or sent.thinking or held.limit
    return not held.choices or limit * sent.copies <= held.limit * held.choices
