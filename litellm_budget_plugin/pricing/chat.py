"""The estimate of every family that is billed by tokens of text: the chat APIs and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from litellm_budget_plugin.pricing import completions, google, messages, responses
from litellm_budget_plugin.pricing.measure import Measure, runs_at_caller
from litellm_budget_plugin.pricing.output import Asked
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, Tier
from litellm_budget_plugin.pricing.terms import Terms
from litellm_budget_plugin.pricing.tokens import is_available
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

_READ: dict[str, Callable[[Measure, Mapping[str, Any]], Asked]] = {
    "text_completion": completions.read_text,
    "embedding": completions.read_embedding,
    "responses": responses.read,
    "messages": messages.read,
    "generate_content": google.read,
}
_DEFAULT_SECONDS = 600
_SEARCHES = 5
# Below this many bytes a tokenizer cannot tighten much: the overhead dominates.
_WORTH_COUNTING = 64


def read(request: Request, measure: Measure) -> Asked:
    """Add up what a request sends, and say what it asks for."""
    return _READ.get(request.call_type, completions.read_chat)(measure, request.params)


def estimate(request: Request, terms: Terms, options: Options) -> Estimate:
    """The input by its bytes and the output by its limit, at the dearest rates that may apply. A lost answer is charged the
    input as probably billed.
    """
    measure = Measure(terms.key or terms.model, terms.provider, exact=options.exact and terms.cl100k)
    asked = read(request, measure)
    output = asked.output(terms, options.output_allowance)
    usd, floor, floor_tokens = _price(measure, terms, request.params, asked, output)
    tokens = measure.text + measure.media + output
    loose = terms.cl100k and not measure.exact and measure.loose >= _WORTH_COUNTING and usd > 0 and is_available()
    bounded = terms.priced and terms.closed and measure.certain and asked.limit > 0
    return Estimate(usd, floor, tokens, floor_tokens, terms.priced, bounded, loose)


def _tier(tiers: tuple[Tier, ...], tokens: int) -> Tier:
    found = tiers[0]
    for tier in tiers:
        if tier.above <= tokens:
            found = tier
    return found


def _price(
    measure: Measure, terms: Terms, params: Mapping[str, Any], asked: Asked, output: int
) -> tuple[int, int, int]:
    """(most, floor) in nano-dollars and the floor's tokens."""
    tier = _tier(terms.tiers, measure.text + measure.media)
    text = tier.hour if measure.caches else tier.text
    most = measure.text * text + measure.media * max(tier.media, text) + terms.fixed
    if output:
        most += output * (tier.audio_output if asked.speaks else tier.output)
    most += measure.images * terms.per_image + measure.audio_seconds * terms.per_audio_second
    most += asked.prompts * terms.per_query
    if terms.per_search:
        most += _searches(params, asked, terms) * terms.per_search
    if terms.per_second:
        most += terms.per_second * _seconds(params.get("timeout") or params.get("request_timeout"))
    floor_tokens = min(-(-measure.floor // 4) + measure.media_floor, measure.text + measure.media)
    usd = -(-most // ATTOS_PER_NANO)
    floor = -(-floor_tokens * _tier(terms.tiers, floor_tokens).plain // ATTOS_PER_NANO)
    return usd, min(floor, usd), floor_tokens


def _seconds(timeout: object) -> int:
    known = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout < 10**7
    return int(timeout) + 1 if known and isinstance(timeout, (int, float)) else _DEFAULT_SECONDS


def _searches(params: Mapping[str, Any], asked: Asked, terms: Terms) -> int:
    searches = 1 if params.get("web_search_options") or not terms.closed else 0
    for tool in asked.tools if isinstance(asked.tools, (list, tuple)) else ():
        if isinstance(tool, Mapping) and not runs_at_caller(tool):
            uses = tool.get("max_uses")
            searches += uses if isinstance(uses, int) and 0 < uses < 10**4 else _SEARCHES
    return searches
