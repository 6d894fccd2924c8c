"""What multiplies or adds to the prices of an entry: regions, speed, margins, and searches made at the provider."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from litellm_budget_plugin.pricing.rates import attos

_AREA = "regional_processing_uplift_multiplier"
# LiteLLM's own list prices for these providers when an entry names none; Google's, the dearest, for all.
_SEARCH_DEFAULT = 35 * 10**15
_SEARCHERS = ("gemini", "vertex_ai", "vertex_ai_beta", "xai", "groq")


def configs() -> tuple[object, object]:
    """LiteLLM's margin and discount configuration, as the application has set it."""
    import litellm

    return getattr(litellm, "cost_margin_config", None), getattr(litellm, "cost_discount_config", None)


def _number(value: object) -> Fraction:
    amount = attos(value)
    return Fraction(amount, 10**18) if amount is not None else Fraction(1)


def region_factor(entry: Mapping[str, Any], *, fast: bool) -> Fraction:
    """What a region or the fast mode may multiply token prices by, at most."""
    # The region is settled by base URL, environment or workspace, which a request does not show: the dearest counts.
    factor, area = Fraction(1), Fraction(1)
    for name, value in entry.items():
        if name.startswith(_AREA):
            area = max(area, _number(value))
        elif "multiplier" in name:
            factor *= max(Fraction(1), _number(value))
    factor *= area
    specific = entry.get("provider_specific_entry")
    if isinstance(specific, Mapping):
        areas = [_number(v) for n, v in specific.items() if n != "fast" and isinstance(v, (int, float))]
        factor *= max([Fraction(1), *areas])
        factor *= _number(specific.get("fast", 1)) if fast else 1
    return factor


def margin_of(provider: str | None, *, discounts: bool) -> tuple[Fraction, int]:
    """(factor, atto-dollars added to each call) by LiteLLM's margin and, where it applies them, discount configuration."""
    margins, lowered = configs()
    factor, fixed = Fraction(1), 0
    if discounts and isinstance(lowered, Mapping) and provider in lowered:
        factor -= min(Fraction(1), _number(lowered[provider]))
    if isinstance(margins, Mapping) and margins:
        margin = margins.get(provider, margins.get("global"))
        share = margin.get("percentage", 0) if isinstance(margin, Mapping) else margin or 0
        factor *= 1 + _number(share)
        fixed = attos(margin.get("fixed_amount", 0)) or 0 if isinstance(margin, Mapping) else 0
    return factor, fixed


def search_price(entry: Mapping[str, Any], provider: str | None) -> int:
    """Atto-dollars of one search at the provider, at most."""
    found: list[int] = []
    for name, value in entry.items():
        if "per_query" in name and name != "input_cost_per_query":
            found += [attos(price) or 0 for price in (value.values() if isinstance(value, Mapping) else (value,))]
    return max(found, default=0) or (_SEARCH_DEFAULT if provider in _SEARCHERS else 0)
