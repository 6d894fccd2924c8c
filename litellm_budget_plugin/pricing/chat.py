"""The estimate of every family that is billed by tokens of text: the chat APIs and embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.arguments import count_seen
from litellm_budget_plugin.pricing.input_size import InputCounter, runs_at_caller
from litellm_budget_plugin.pricing.output_limit import DEFAULT_LIMIT, OutputLimit, litellm_limit
from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import ATTOS_PER_NANO, Tier
from litellm_budget_plugin.pricing.request_formats import read
from litellm_budget_plugin.pricing.scan import Scan
from litellm_budget_plugin.pricing.tokens import is_available
from litellm_budget_plugin.pricing.values import Covered, Estimate, Options, Request

_DEFAULT_SECONDS = 600
_SEARCHES = 5
# Below this many bytes a tokenizer cannot tighten much: the overhead dominates.
_WORTH_COUNTING = 64


def estimate(request: Request, sheet: PriceSheet, options: Options, sent: Scan | None = None) -> Estimate:
    """The input by its bytes and the output by its limit, at the dearest rates that may apply. A lost answer is charged the
    input as probably billed. `sent` is what the body holds that LiteLLM is about to send: it counts too.
    """
    counter = InputCounter(sheet.key or sheet.model, sheet.provider, exact=options.exact and sheet.cl100k)
    asked = read(request, counter)
    if sent is not None:
        _count_body(counter, asked, sent, sheet)
    # Where nothing was found to read, something is sent all the same: only what costs nothing is not held for.
    counter.text = max(counter.text, 1)
    tokens = asked.tokens(sheet, options.output_allowance)
    output = asked.output(tokens)
    usd, floor, floor_tokens = _price(counter, sheet, request.params, asked, output)
    total = counter.text + counter.media + output
    loose = sheet.cl100k and not counter.exact and counter.loose >= _WORTH_COUNTING and usd > 0 and is_available()
    bounded = sheet.priced and sheet.closed and counter.certain and asked.stated
    most = tokens if asked.stated else _unstated(asked, sheet, tokens)
    answers = asked.choices * asked.prompts
    covered = Covered(counter.bytes, most, answers, counter.media_parts, counter.caches, asked.stated)
    return Estimate(usd, floor, total, floor_tokens, sheet.priced, bounded, loose, covered)


def _count_body(counter: InputCounter, asked: OutputLimit, sent: Scan, sheet: PriceSheet) -> None:
    """Count what the body holds beyond what was read from the arguments. What that is, is not understood."""
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


def _unstated(asked: OutputLimit, sheet: PriceSheet, tokens: int) -> int:
    """The largest limit that LiteLLM may set for a request which states none: it changes nothing, for without it the answer
    could be as long.
    """
    return max(tokens, sheet.max_output or litellm_limit(), asked.thinking + DEFAULT_LIMIT if asked.thinking else 0)


def _tier(tiers: tuple[Tier, ...], tokens: int) -> Tier:
    found = tiers[0]
    for tier in tiers:
        if tier.above <= tokens:
            found = tier
    return found


def _price(
    counter: InputCounter, sheet: PriceSheet, params: Mapping[str, Any], asked: OutputLimit, output: int
) -> tuple[int, int, int]:
    """(most, floor) in nano-dollars and the floor's tokens."""
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
    return usd, min(floor, usd), floor_tokens


def _seconds(timeout: object) -> int:
    known = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout < 10**7
    return int(timeout) + 1 if known and isinstance(timeout, (int, float)) else _DEFAULT_SECONDS


def _searches(params: Mapping[str, Any], asked: OutputLimit, sheet: PriceSheet) -> int:
    searches = 1 if params.get("web_search_options") or not sheet.closed else 0
    for tool in asked.tools if isinstance(asked.tools, (list, tuple)) else ():
        if isinstance(tool, Mapping) and not runs_at_caller(tool):
            uses = tool.get("max_uses")
            searches += uses if isinstance(uses, int) and 0 < uses < 10**4 else _SEARCHES
    return searches
