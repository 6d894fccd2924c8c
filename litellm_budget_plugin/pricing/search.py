"""Reranking and web searches, billed by search units and queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import dearest_of, scaled
from litellm_budget_plugin.pricing.scan import number_of
from litellm_budget_plugin.pricing.tokens import NO_JSON, byte_length, json_size
from litellm_budget_plugin.pricing.unit_estimate import UnitCost, count, nested
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

# Cohere, "How does pricing work": one search unit is a query with up to 100 documents. A document longer than 500
# tokens, including the query's, counts as several. Amazon splits at 512 tokens. Google's ranker takes 100 records a
# unit.
_DOCUMENTS_A_UNIT = 100
_TOKENS_A_DOCUMENT = 500
_UNIT_PER_TOKEN = frozenset({"infinity"})  # its answers give the tokens as search units
_PER_DOCUMENT = 16
# LiteLLM, litellm/llms/parallel_ai/search/cost_calculator.py: a tenth of a cent for each result beyond ten.
_PARALLEL_RESULT = 10**15
_PARALLEL_RESULTS = 10


def estimate_rerank(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Estimate search units by the number and length of the documents, and tokens if a model has a price for them.

    A lost answer is charged one search unit, the least that a provider bills for a served request.
    """
    params = request.params
    documents = params.get("documents")
    texts = [_bytes(document) for document in documents] if isinstance(documents, (list, tuple)) else []
    query = _bytes(params.get("query"))
    # At least half of a piece belongs to the document, because Cohere cuts off longer queries.
    room = max(_TOKENS_A_DOCUMENT - query, _TOKENS_A_DOCUMENT // 2)
    pieces = sum(max(1, -(-size // room)) for size in texts)
    units = max(1, -(-pieces // _DOCUMENTS_A_UNIT))
    tokens = sum(texts) + (query + _PER_DOCUMENT) * max(len(texts), 1)
    if sheet.provider in _UNIT_PER_TOKEN:
        units = tokens
    per_query, per_token = sheet.rate("input_cost_per_query"), sheet.rate("input_cost_per_token")
    probable = tokens // 4
    cost = UnitCost(
        most=units * per_query + tokens * (per_token + sheet.rate("output_cost_per_token")),
        floor=per_query + probable * per_token,
        known=isinstance(documents, (list, tuple)),
        per_byte=per_token,
        tokens=tokens,
        floor_tokens=probable,
    )
    return cost.estimate(sheet, options)


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return byte_length(value)
    size = 0 if value is None else json_size(value)
    return NO_JSON if size is None else size


def queries(params: Mapping[str, Any]) -> int:
    """Return the number of searches that a call of `litellm.search` makes."""
    query = params.get("query")
    return max(len(query), 1) if isinstance(query, (list, tuple)) else 1


def estimate_search(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Return queries times the price of one, by the requested number of results. A lost answer is charged in full."""
    params = request.params
    results = max((found for part in nested(params) for found in [_results(part)] if found), default=None)
    price = scaled(max(_prices(sheet, params, results), default=0), sheet.factor)
    most = floor = queries(params) * price
    if sheet.provider == "parallel_ai":
        most += max((results or _PARALLEL_RESULTS) - _PARALLEL_RESULTS, 0) * scaled(_PARALLEL_RESULT, sheet.factor)
    return UnitCost(most, floor).estimate(sheet, options)


def _results(params: Mapping[str, Any]) -> int | None:
    settings = params.get("advanced_settings")
    inner = count(settings, "max_results") if isinstance(settings, Mapping) else None
    return max(inner or 0, count(params, "max_results", "num_results", "limit") or 0) or None


def _prices(sheet: PriceSheet, params: Mapping[str, Any], results: int | None) -> list[int]:
    found = [dearest_of(sheet.prices, "input_cost_per_query")]
    tiers = sheet.prices.get("tiered_pricing")
    if isinstance(tiers, list):
        found += _tier_prices(tiers, results)
    # "tavily/search-advanced" is the price of search_depth="advanced". LiteLLM bills all of them as "tavily/search".
    import litellm

    words = {value for part in nested(params) for value in part.values() if isinstance(value, str) and len(value) < 20}
    keys = [f"{sheet.key}-{word}" for word in words]
    # Parallel's requests are priced by their mode, whatever their name.
    keys += [f"{sheet.provider}/search"] if sheet.provider == "parallel_ai" else []
    for key in keys:
        entry = litellm.model_cost.get(key)
        if isinstance(entry, Mapping):
            found.append(dearest_of(entry, "input_cost_per_query"))
    return found


def _tier_prices(tiers: list[Any], results: int | None) -> list[int]:
    every: list[int] = []
    for tier in tiers:
        if not isinstance(tier, Mapping):
            continue
        price = dearest_of(tier, "input_cost_per_query")
        span = tier.get("max_results_range")
        ends = [number_of(end) for end in span] if isinstance(span, (list, tuple)) else []
        if results is not None and len(ends) == 2 and (ends[0] or 0) <= results <= (ends[1] or 0):
            return [price]
        every.append(price)
    return every
