"""`estimate`: the most that a call may cost, and its floor. `estimate_sent`: the same for the body that LiteLLM is
about to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from litellm_budget_plugin.pricing import audio, documents, images, search, unit_estimate
from litellm_budget_plugin.pricing.arguments import count_seen, is_free, unknown_arguments
from litellm_budget_plugin.pricing.cost_map import price_key, route
from litellm_budget_plugin.pricing.input_size import InputCounter, runs_at_caller
from litellm_budget_plugin.pricing.output_limit import DEFAULT_LIMIT, OutputLimit, litellm_limit
from litellm_budget_plugin.pricing.price_sheet import PriceSheet, price_sheet
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, BY_TOKENS, Tier
from litellm_budget_plugin.pricing.request_formats import read
from litellm_budget_plugin.pricing.scan import Scan, scan
from litellm_budget_plugin.pricing.tokens import is_available
from litellm_budget_plugin.pricing.usage import parse_raw
from litellm_budget_plugin.pricing.values import Covered, Estimate, Options, Request

_DEFAULT_SECONDS = 600
_SEARCHES = 5
# Below this many bytes a tokenizer cannot improve the bound much, because the overhead dominates.
_WORTH_COUNTING = 64
# Names of an API's versions, models and options, which are not part of the text.
_OPTIONS = 512
# If a format has one place for its limits, the provider ignores limits elsewhere or under another name.
_LIMITS_IN = {
    "generationConfig": ("maxOutputTokens", "max_output_tokens"),
    "generation_config": ("maxOutputTokens", "max_output_tokens"),
    "inferenceConfig": ("maxTokens",),
}
_LIMITS_OF = {"ollama": {"options": ("num_predict",)}, "ollama_chat": {"options": ("num_predict",)}}

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
    """Return the most that this call may cost. Never raises for an odd request, and never uses the network.

    `output_allowance` is the number of output tokens of a call that states no limit. `unbounded_hold`, in nano-dollars,
    is the least that is held for a call whose quantity cannot be known before it has run. Its cost cannot be computed
    then, and the estimate is never `bounded`. For a call type without an estimate of its own, `unbounded_hold` is held,
    and charged if its answer is lost. `exact` counts the text of models that really use cl100k_base (see `tokens`)
    instead of bounding it by its bytes.
    """
    options = Options(output_allowance, unbounded_hold, exact)
    if request.call_type in BY_TOKENS:
        return _by_tokens(request, _sheet(request), options)
    family = _FAMILIES.get(request.call_type)
    if family is None:
        return Estimate(unbounded_hold, unbounded_hold, 0, 0, priced=True, bounded=False, loose=False)
    return family(
        request, _sheet(request), options._replace(unknown=unknown_arguments(request.call_type, request.params))
    )


def _by_tokens(request: Request, sheet: PriceSheet, options: Options, sent: Scan | None = None) -> Estimate:
    """Return the cost of the input by its bytes and of the output by its limit, at the highest rates that may apply. A
    lost answer is charged the input as probably billed. `sent` is the content of the body that LiteLLM is about to
    send. It counts too.
    """
    counter = InputCounter(sheet.key or sheet.model, sheet.provider, exact=options.exact and sheet.cl100k)
    asked = read(request, counter)
    if sent is not None:
        _count_body(counter, asked, sent, sheet)
    # Something is sent even if nothing was found to read. Only calls that cost nothing are not held for.
    counter.text = max(counter.text, 1)
    tokens = asked.tokens(sheet, options.output_allowance)
    output = asked.output(tokens)
    usd, floor = _price(counter, sheet, request.params, asked, output)
    total = counter.text + counter.media + output
    loose = sheet.cl100k and not counter.exact and counter.loose >= _WORTH_COUNTING and usd > 0 and is_available()
    bounded = sheet.priced and sheet.closed and counter.certain and asked.stated
    most = tokens if asked.stated else _unstated(asked, sheet, tokens)
    answers = asked.choices * asked.prompts
    covered = Covered(counter.bytes, most, answers, counter.media_parts, counter.caches, asked.stated)
    assumed = tokens if output and not asked.stated else 0
    return Estimate(usd, floor, total, counter.floor_tokens, sheet.priced, bounded, loose, covered, assumed)


def _unstated(asked: OutputLimit, sheet: PriceSheet, tokens: int) -> int:
    """Return the largest limit that LiteLLM may set for a request that states none. Such a limit changes nothing,
    because without it the answer could be as long.
    """
    return max(tokens, sheet.max_output or litellm_limit(), asked.thinking + DEFAULT_LIMIT if asked.thinking else 0)


def _price(
    counter: InputCounter, sheet: PriceSheet, params: Mapping[str, Any], asked: OutputLimit, output: int
) -> tuple[int, int]:
    """Return (most, floor) in nano-dollars."""
    tier = _tier(sheet.tiers, counter.text + counter.media)
    unasked = tier.written if sheet.writes_caches else tier.text
    text = tier.hour if counter.caches else unasked
    most = counter.text * text + counter.media * max(tier.media, text) + sheet.fixed
    if output:
        most += output * (tier.audio_output if asked.speaks else tier.output)
    most += counter.images * sheet.per_image + counter.audio_seconds * sheet.per_audio_second
    most += asked.prompts * sheet.per_query
    if sheet.per_search:
        most += _searches(params, asked, sheet) * sheet.per_search
    if sheet.per_second:
        most += sheet.per_second * _seconds(params.get("timeout") or params.get("request_timeout"))
    floor_tokens = counter.floor_tokens
    usd = -(-most // ATTOS_PER_NANO)
    floor = -(-floor_tokens * _tier(sheet.tiers, floor_tokens).plain // ATTOS_PER_NANO)
    return usd, min(floor, usd)


def _tier(tiers: tuple[Tier, ...], tokens: int) -> Tier:
    found = tiers[0]
    for tier in tiers:
        if tier.above <= tokens:
            found = tier
    return found


def _seconds(timeout: object) -> int:
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout < 10**7:
        return int(timeout) + 1
    return _DEFAULT_SECONDS


def _searches(params: Mapping[str, Any], asked: OutputLimit, sheet: PriceSheet) -> int:
    searches = 1 if params.get("web_search_options") or not sheet.closed else 0
    for tool in asked.tools if isinstance(asked.tools, (list, tuple)) else ():
        if isinstance(tool, Mapping) and not runs_at_caller(tool):
            uses = tool.get("max_uses")
            searches += uses if isinstance(uses, int) and 0 < uses < 10**4 else _SEARCHES
    return searches


def estimate_sent(
    request: Request, body: object, held: Estimate, *, output_allowance: int, unbounded_hold: int
) -> Estimate:
    """Return the most that this call may cost, now that the body that LiteLLM is about to send is known.

    `body` is a dictionary in the provider's own format, its JSON, or anything else. `held` is the estimate that was
    held for. It is returned itself if it covers the body, else a larger estimate, which is not `bounded`. Never raises.
    """
    if request.call_type not in BY_TOKENS:
        return held
    sent, limited = scan_body(body, price_key(request).provider or route(request.model, None)[1])
    lost = held.covered is not None and held.covered.stated and held.covered.choices and not limited
    if held.covered is not None and not lost and covers(held.covered, sent):
        return held
    sheet = _sheet(request)
    if lost:
        # A limit that LiteLLM does not pass on has no effect: the answer can be as long as the model writes.
        sent.unlimited, sent.limit = True, max(sent.limit, sheet.max_output or 0)
    found = _by_tokens(request, sheet, Options(output_allowance, unbounded_hold), sent)
    return replace(found, usd=max(found.usd, held.usd), tokens=max(found.tokens, held.tokens), loose=False)


def _sheet(request: Request) -> PriceSheet:
    return price_sheet(price_key(request), request.said("service_tier"), request.said("speed"))


def scan_body(given: object, provider: str | None) -> tuple[Scan, bool]:
    """Return the content of a body in any provider's format, and whether it is a request that limits its output. The
    body is a dictionary, its JSON as text or bytes, or anything else.
    """
    if isinstance(given, (bytes, bytearray)):
        given = bytes(given).decode("utf-8", "surrogateescape")
    parsed = parse_raw(given)
    body: Any = given if parsed is None else parsed
    sent = scan(body, skip=is_free)
    limited = bool(sent.limit or sent.thinking or not sent.readable or not sent.text)
    for place, names in _LIMITS_OF.get(provider or "", _LIMITS_IN).items() if isinstance(body, Mapping) else ():
        inside = body.get(place)
        if isinstance(inside, Mapping) or provider in _LIMITS_OF:
            limited = isinstance(inside, Mapping) and any(inside.get(name) is not None for name in names)
    return sent, limited


def covers(held: Covered, sent: Scan) -> bool:
    """Return whether an estimate that counted this much covers the body."""
    if sent.text > held.text + _OPTIONS or sent.media > held.media or (sent.caches and not held.caches):
        return False
    if held.stated and sent.unlimited:
        return False
    # If a limit is sent, a budget of thinking tokens is part of it.
    limit = sent.limit or sent.thinking or held.limit
    return not held.choices or limit * sent.copies <= held.limit * held.choices


def _count_body(counter: InputCounter, asked: OutputLimit, sent: Scan, sheet: PriceSheet) -> None:
    """Count what the body holds beyond what was read from the arguments. Its meaning is unknown."""
    counter.certain = False
    beyond = Scan(
        text=max(sent.text - counter.bytes, 0),
        limit=sent.limit if asked.stated or sent.limit > _unstated(asked, sheet, 0) else 0,
        unlimited=sent.unlimited,
        thinking=0 if sent.limit else sent.thinking,
        copies=-(-sent.copies // max(asked.prompts, 1)),
        media=max(sent.media - counter.media_parts, 0),
        caches=sent.caches,
        readable=False,
    )
    count_seen(counter, asked, beyond)


def dearest(estimates: Iterable[Estimate]) -> Estimate:
    """Return the largest of several estimates. Those without a price are ignored unless there are no others. For no
    estimates, return one of zero.
    """
    nothing = Estimate(0, 0, 0, 0, priced=True, bounded=False, loose=False)
    return max(estimates, key=lambda estimate: (estimate.priced, estimate.usd), default=nothing)
