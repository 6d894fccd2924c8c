"""`estimate`: the most that a call may cost, and its floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from litellm_budget_plugin.pricing.entries import select
from litellm_budget_plugin.pricing.measure import PER_CALL, PROVIDER_CALL, Measure, runs_at_caller
from litellm_budget_plugin.pricing.output import output_bound
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, Tier
from litellm_budget_plugin.pricing.terms import Terms, terms_of
from litellm_budget_plugin.pricing.tokens import is_available
from litellm_budget_plugin.pricing.values import Estimate, Request

# These add text, or change limits, where this code cannot see it.
_UNSEEN = ("extra_body", "prompt_id", "vector_store_ids", "documents", "web_search_options", "plugins", "transforms")
_CACHE_SIGNS = ("cache_control", "cache_control_injection_points")
_DEFAULT_SECONDS = 600
_SEARCHES = 5
# Below this many bytes a tokenizer cannot tighten much: the overhead dominates.
_WORTH_COUNTING = 64


def estimate(request: Request, *, output_allowance: int, exact: bool = False) -> Estimate:
    """What this call may cost at most. Never raises for a weird request, and never touches the network.

    `output_allowance` is the number of output tokens of a call that states no limit. `exact` counts the text of
    models that cl100k_base really encodes (see `tokens`) instead of bounding it by its bytes.
    """
    params = request.params
    terms = terms_of(select(request), params.get("service_tier"), params.get("speed"))
    measure = Measure(terms.key or terms.model, terms.provider, exact=exact and terms.cl100k)
    if request.call_type == "embedding":
        items = measure.add_prompt(params.get("input"))
        output, limited = 0, True
    else:
        items = _add_input(measure, request)
        output, limited = output_bound(request, terms, output_allowance, measure.text, items)
    usd, floor, floor_tokens = _price(measure, terms, params, output, items)
    tokens = measure.text + measure.media + output
    loose = terms.cl100k and not measure.exact and measure.loose >= _WORTH_COUNTING and usd > 0 and is_available()
    bounded = terms.priced and terms.closed and measure.certain and limited
    return Estimate(usd, floor, tokens, floor_tokens, terms.priced, bounded, loose)


def dearest(estimates: Iterable[Estimate]) -> Estimate:
    """The largest of several estimates. Those without a price count for nothing, unless there are no others; of no
    estimates at all, nothing.
    """
    nothing = Estimate(0, 0, 0, 0, priced=True, bounded=False, loose=False)
    return max(estimates, key=lambda estimate: (estimate.priced, estimate.usd), default=nothing)


def _add_input(measure: Measure, request: Request) -> int:
    params = request.params
    items = 1
    if request.call_type == "text_completion":
        items = measure.add_prompt(params.get("prompt"))
    else:
        measure.add_messages(params.get("messages"))
    measure.text += (PER_CALL + PROVIDER_CALL.get(measure.provider or "", 0)) * items
    for name in ("tools", "functions"):
        if params.get(name):
            measure.add_tools(params[name])
    if params.get("response_format"):
        measure.add_tools([{"name": "", "schema": _schema(params["response_format"])}])
    for name in _UNSEEN:
        if params.get(name):
            measure.add_unknown(params[name])
    measure.caches = measure.caches or any(params.get(name) for name in _CACHE_SIGNS)
    return items


def _schema(response_format: object) -> object:
    # A pydantic class is sent as its schema.
    make = getattr(response_format, "model_json_schema", None)
    if not callable(make):
        return response_format
    try:
        return make()
    except Exception:  # noqa: BLE001  # the caller's class: an estimate never raises
        return repr(response_format)


def _tier(tiers: tuple[Tier, ...], tokens: int) -> Tier:
    found = tiers[0]
    for tier in tiers:
        if tier.above <= tokens:
            found = tier
    return found


def _price(measure: Measure, terms: Terms, params: Mapping[str, Any], output: int, items: int) -> tuple[int, int, int]:
    """(most, floor) in nano-dollars and the floor's tokens."""
    tier = _tier(terms.tiers, measure.text + measure.media)
    text = tier.hour if measure.caches else tier.text
    most = measure.text * text + measure.media * max(tier.media, text) + terms.fixed
    if output:
        speaks = params.get("audio") or params.get("modalities")
        most += output * (tier.audio_output if speaks else tier.output)
    most += measure.images * terms.per_image + measure.audio_seconds * terms.per_audio_second
    most += items * terms.per_query
    if terms.per_search:
        most += _searches(params, terms) * terms.per_search
    if terms.per_second:
        most += terms.per_second * _seconds(params.get("timeout") or params.get("request_timeout"))
    floor_tokens = min(-(-measure.floor // 4) + measure.media_floor, measure.text + measure.media)
    usd = -(-most // ATTOS_PER_NANO)
    floor = -(-floor_tokens * _tier(terms.tiers, floor_tokens).plain // ATTOS_PER_NANO)
    return usd, min(floor, usd), floor_tokens


def _seconds(timeout: object) -> int:
    known = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout < 10**7
    return int(timeout) + 1 if known and isinstance(timeout, (int, float)) else _DEFAULT_SECONDS


def _searches(params: Mapping[str, Any], terms: Terms) -> int:
    searches = 1 if params.get("web_search_options") or not terms.closed else 0
    tools = params.get("tools")
    for tool in tools if isinstance(tools, (list, tuple)) else ():
        if isinstance(tool, Mapping) and not runs_at_caller(tool):
            uses = tool.get("max_uses")
            searches += uses if isinstance(uses, int) and 0 < uses < 10**4 else _SEARCHES
    return searches
