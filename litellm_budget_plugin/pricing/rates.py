"""The rates of a cost-map entry and the units that they price: integers in atto-dollars (1e-18 USD), rounded up.

Source: litellm/litellm_core_utils/llm_cost_calc/utils.py, `generic_cost_per_token` and the functions that it calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from litellm_budget_plugin.pricing.scan import number_of

_NEVER = 10**12
"""More tokens than any prompt has."""
ATTOS_PER_NANO = 10**9
_ATTOS_PER_USD = Decimal(10**18)
# A field that names a service tier applies only to that tier. Every other field may apply to any call.
_SERVICES = ("priority", "flex", "balanced", "ultrafast", "decisions")
_SERVICE = {"fast": "priority"}
_ABOVE = re.compile(r"_above_(\d+)(k?)_tokens")
_PLAIN_INPUT = ("input_cost_per_token", "input_cost_per_character")


def _side(name: str) -> str | None:
    """Return the side of a call that a field of an entry prices. A field that LiteLLM adds later counts by its name."""
    base = _ABOVE.sub("", name)
    # A character has at least one byte, as a token has. So the count of bytes bounds a price per character too.
    if not base.startswith("input_cost_per_character") and not (
        "cost" in base and "token" in base and "1k" not in base
    ):
        return None
    # Databricks also counts in units of its own besides dollars. Batch prices are not used here.
    if "batch" in base or "dbu" in base:
        return None
    if base.startswith("output") or "reasoning" in base:
        return "audio_output" if "audio" in base or "video" in base else "output"
    if "audio" in name or "image" in name or "video" in name:
        return "media"
    if "creation" in name or "write" in name:
        return "hour" if "hr" in name else "written"
    return "text"


def attos(value: object) -> int | None:
    """Return a price in USD as atto-dollars, rounded up; None for anything but a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        return None
    if not amount.is_finite() or amount < 0 or amount > 10**9:
        return None
    return int((amount * _ATTOS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def dearest_of(prices: Mapping[str, Any], *names: str) -> int:
    """Return the highest of these prices in atto-dollars; 0 if the entry has none of them."""
    return max(attos(prices.get(name)) or 0 for name in names)


def scaled(amount: int, factor: Fraction) -> int:
    """Return amount times factor, rounded up."""
    return -(-amount * factor.numerator // factor.denominator)


@dataclass(frozen=True, slots=True)
class Tier:
    """The highest rates of a call whose prompt may reach `above` tokens, in atto-dollars a token."""

    above: int
    text: int
    written: int
    """Input that may be written to a cache."""
    hour: int
    """Input that may be written to a one-hour cache."""
    media: int
    output: int
    audio_output: int
    plain: int
    """Input as normally billed, for the floor."""


def _note(rates: dict[str, dict[int, int]], name: str, value: object, service: str, start: int) -> None:
    """Keep the higher of two rates of one side and threshold."""
    side, rate = _side(name), attos(value)
    named = next((other for other in _SERVICES if other in name), None)
    if side is None or rate is None or (named and named != service):
        return
    match = _ABOVE.search(name)
    above = start + (int(match[1]) * (1000 if match[2] else 1) if match else 0)
    for noted in (side, "plain") if name.startswith(_PLAIN_INPUT) and not named else (side,):
        known = rates.setdefault(noted, {})
        known[above] = max(known.get(above, 0), rate)


def _tier(rates: Mapping[str, Mapping[int, int]], above: int, factor: Fraction) -> Tier:
    def dearest(*sides: str) -> int:
        passed = (rate for side in sides for start, rate in rates.get(side, {}).items() if start <= above)
        return scaled(max(passed, default=0), factor)

    plain = rates.get("plain", {})
    standing = max((start for start in plain if start <= above), default=None)
    return Tier(
        above=above,
        text=dearest("text"),
        written=dearest("text", "written"),
        hour=dearest("text", "written", "hour"),
        media=dearest("text", "media"),
        output=dearest("output"),
        audio_output=dearest("output", "audio_output"),
        plain=0 if standing is None else scaled(plain[standing], factor),
    )


def read_tiers(entry: Mapping[str, Any], service_tier: str | None, factor: Fraction) -> tuple[Tier, ...]:
    """Return every token rate of an entry that may apply under this service tier ("auto" may be served as priority),
    times the factor. There is one Tier for each threshold, lowest first. Each is at least as expensive as the one
    before.
    """
    wanted = (service_tier or "").lower()
    # The provider may serve the standard tier instead, so the standard rates always stay in.
    service = "priority" if wanted == "auto" else _SERVICE.get(wanted, wanted)
    rates: dict[str, dict[int, int]] = {}
    for part in (entry, entry.get("off_peak_pricing")):
        for name, value in part.items() if isinstance(part, Mapping) else ():
            _note(rates, name, value, service, 0)
    tiered = entry.get("tiered_pricing")
    for tier in tiered if isinstance(tiered, list) else ():
        if isinstance(tier, Mapping):
            bounds = tier.get("range")
            first = number_of(bounds[0]) if isinstance(bounds, (list, tuple)) and bounds else None
            # A range that cannot be read may be any range.
            start = int(first) if first is not None and 0 < first < _NEVER else 0
            for name, value in tier.items():
                _note(rates, name, value, service, start)
    starts = sorted({0, *(start for known in rates.values() for start in known)})
    return tuple(_tier(rates, start, factor) for start in starts)


BOTH_SIDES = ("input_cost_per_token", "output_cost_per_token")
SECONDS = ("cost_per_second", "input_cost_per_second", "output_cost_per_second")
IMAGES = ("image_generation", "image_edit", "image_variation")
# LiteLLM returns the cost of these before it applies margins and discounts.
UNDISCOUNTED = frozenset((*IMAGES, "video_generation"))
BY_TOKENS = frozenset({"completion", "text_completion", "embedding", "responses", "messages", "generate_content"})
_TOKENS = (
    *BOTH_SIDES,
    *SECONDS,
    "tiered_pricing",
    "input_cost_per_character",
    "output_cost_per_character",
    "input_cost_per_query",
)
_IMAGE = (
    "input_cost_per_image",
    "output_cost_per_image",
    "input_cost_per_pixel",
    "output_cost_per_pixel",
    "output_cost_per_image_token",
)
VIDEO = ("output_cost_per_video_per_second", "output_cost_per_second")
# Source: litellm/cost_calculator.py, `cost_per_token` and `completion_cost`.
_FIELDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(IMAGES, _IMAGE),
    "speech": ("input_cost_per_character", "input_cost_per_token", "output_cost_per_image"),
    "transcription": (*SECONDS[1:], "input_cost_per_token", "input_cost_per_audio_token"),
    "rerank": ("input_cost_per_query", "input_cost_per_token"),
    "ocr": ("ocr_cost_per_page", "ocr_cost_per_credit", "annotation_cost_per_page"),
    "search": ("input_cost_per_query", "tiered_pricing"),
    "video_generation": VIDEO,
    "realtime": (*BOTH_SIDES, "input_cost_per_second", "input_cost_per_text_message"),
}


def is_priced(entry: Mapping[str, Any], call_type: str) -> bool:
    """Return whether an entry contains a price in a unit of this family. 0 is a price; None and negative numbers are
    not.
    """
    values = [entry[name] for name in _FIELDS.get(call_type, _TOKENS) if entry.get(name) is not None]
    # openrouter/auto and similar models have -1 for "depends", which is not a price.
    return bool(values) and all(isinstance(value, list) or attos(value) is not None for value in values)


# OpenAI's fields. A call is served in one of these places.
_AREAS = ("regional_processing_uplift_multiplier", "fedramp_uplift_multiplier")
# LiteLLM's own list prices for these providers if an entry names none. Google's price, the highest, is used for all.
_SEARCH_DEFAULT = 35 * 10**15
_SEARCHERS = ("gemini", "vertex_ai", "vertex_ai_beta", "xai", "groq")


def configs() -> tuple[object, object]:
    """Return LiteLLM's margin and discount configuration, as the application has set it."""
    import litellm

    return getattr(litellm, "cost_margin_config", None), getattr(litellm, "cost_discount_config", None)


def _number(value: object) -> Fraction:
    amount = attos(value)
    return Fraction(amount, 10**18) if amount is not None else Fraction(1)


def region_factor(entry: Mapping[str, Any], *, fast: bool) -> Fraction:
    """Return the highest factor by which a region or the fast mode may multiply token prices."""
    # The base URL, environment or workspace decides the region, and a request does not show them. The most expensive
    # one counts.
    factor, area = Fraction(1), Fraction(1)
    for name, value in entry.items():
        if name.startswith(_AREAS):
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
    """Return (factor, atto-dollars added to each call) from LiteLLM's margin configuration and, where it applies, its
    discount configuration.
    """
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
    """Return the most that one search at the provider costs, in atto-dollars."""
    found: list[int] = []
    for name, value in entry.items():
        if "per_query" in name and name != "input_cost_per_query":
            found += [attos(price) or 0 for price in (value.values() if isinstance(value, Mapping) else (value,))]
    return max(found, default=0) or (_SEARCH_DEFAULT if provider in _SEARCHERS else 0)
