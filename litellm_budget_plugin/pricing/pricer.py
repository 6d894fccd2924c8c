"""From usage to money, by LiteLLM's own cost calculator; flat prices of the caller are multiplied here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from litellm_budget_plugin.core.money import charge_nanos
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.pricing.cost_map import PriceKey, find_key, own_prices, price_key
from litellm_budget_plugin.pricing.dialects import dialect_of
from litellm_budget_plugin.pricing.rates import attos, round_half_even
from litellm_budget_plugin.pricing.terms import Terms, terms_of
from litellm_budget_plugin.pricing.units import is_priced
from litellm_budget_plugin.pricing.usage import Counted, as_mapping, field
from litellm_budget_plugin.pricing.values import Request

_USAGE_FIELDS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "server_tool_use",
    "inference_geo",
    "speed",
    "service_tier",
)


def price(request: Request, name: str, counted: Counted, answer: object = None) -> int | None:
    """The cost of this usage in nano-dollars, half to even; None when nobody knows the price.

    `name` is the response's model, which LiteLLM prices before the request's, unless the caller gave a base model or
    prices. `answer` adds what only LiteLLM's own object shows, such as searches.
    """
    selector = price_key(request)
    terms = terms_of(selector, request.params.get("service_tier"), request.params.get("speed"))
    flat = 0 if terms.zero else _flat(selector, counted)
    if flat is not None:
        return flat
    for key in _keys(selector, terms, name):
        # An answer can name a provider that LiteLLM has no price under; its usage alone can still be priced.
        for source in (answer, None) if answer is not None else (None,):
            cost = _calculate(request, terms, key, counted, source)
            if cost is not None:
                return cost
    return None


def _flat(selector: PriceKey, counted: Counted) -> int | None:
    prices = own_prices(selector)
    read, wrote = attos(prices.get("input_cost_per_token")), attos(prices.get("output_cost_per_token"))
    if read is None or (wrote is None and counted.output):
        return None
    details = as_mapping(counted.raw.get("prompt_tokens_details")) or {}
    hits = details.get("cached_tokens") or counted.raw.get("cache_read_input_tokens") or 0
    cached = min(hits, counted.input) if isinstance(hits, int) and hits > 0 else 0
    cached_rate = attos(prices.get("cache_read_input_token_cost"))
    total = (counted.input - cached) * read + cached * (read if cached_rate is None else cached_rate)
    return round_half_even(total + counted.output * (wrote or 0))


def _keys(selector: PriceKey, terms: Terms, name: str) -> list[str]:
    import litellm

    own = selector.deployment
    answered = None if selector.base_model else find_key(name, terms.provider, selector.call_type)
    found = [
        key
        for key in (own, answered, terms.key)
        if key and is_priced(litellm.model_cost.get(key) or {}, selector.call_type)
    ]
    return list(dict.fromkeys(found))


def _calculate(request: Request, terms: Terms, key: str, counted: Counted, answer: object) -> int | None:
    import litellm

    milliseconds = field(answer, "_response_ms")
    arguments: dict[str, Any] = {
        "completion_response": _response(key, counted, answer),
        "model": key,
        "custom_llm_provider": terms.provider or litellm.model_cost[key].get("litellm_provider"),
        "call_type": dialect_of(request).call_type,
        "optional_params": {"service_tier": request.params.get("service_tier")},
        "total_time": milliseconds if isinstance(milliseconds, (int, float)) else 0.0,
    }
    if key == price_key(request).deployment:
        arguments |= {"custom_pricing": True, "router_model_id": key}
    try:
        cost = charge_nanos(litellm.completion_cost(**arguments))
    except BudgetInputError:
        return None
    except Exception:  # noqa: BLE001  # LiteLLM raises plain Exception for what it cannot price
        return None
    # A price a second without a time is no cost at all: unknown, not free.
    return None if not cost and terms.per_second else cost


def _response(key: str, counted: Counted, answer: object) -> Any:
    import litellm
    from litellm.types.llms.openai import ResponsesAPIResponse

    if isinstance(answer, Mapping) and answer.get("object") == "response":
        # LiteLLM prices searches and the like by the items of its own object.
        with suppress(Exception):
            return ResponsesAPIResponse(**answer)
    if isinstance(answer, (litellm.ModelResponse, ResponsesAPIResponse)):
        return answer
    raw = {name: counted.raw[name] for name in _USAGE_FIELDS if counted.raw.get(name) is not None}
    raw.setdefault("total_tokens", counted.input + counted.output)
    response = litellm.ModelResponse(model=key)
    response.usage = litellm.Usage(**raw)
    return response
