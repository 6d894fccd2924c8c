"""Price sheets: everything about prices and limits that an estimate needs, cached for each cost-map entry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from litellm_budget_plugin.pricing.cost_map import ASKS_NETWORK, PriceKey, price_key, providers, public_key, route
from litellm_budget_plugin.pricing.rates import (
    BOTH_SIDES,
    BY_TOKENS,
    SECONDS,
    UNDISCOUNTED,
    Tier,
    attos,
    configs,
    dearest_of,
    is_priced,
    margin_of,
    read_tiers,
    region_factor,
    scaled,
    search_price,
)
from litellm_budget_plugin.pricing.tokens import is_cl100k
from litellm_budget_plugin.pricing.values import Request

# Perplexity bills searches and citations that were not asked for. A model router's price is only its fee.
_OPEN_ENDED = re.compile(r"perplexity|model[-_]router|openrouter/auto|deep-research|-search-|groq/compound")
_CACHE_SIZE = 4096
# For these APIs, these providers take the limit unchanged. Other providers get it through chat completions.
_NATIVE = {
    "responses": ("openai", "azure"),
    "messages": ("anthropic",),
    "generate_content": ("gemini", "vertex_ai", "vertex_ai_beta"),
}


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """Prices of one deployment under one service tier. Rates are in atto-dollars."""

    model: str
    provider: str | None
    key: str | None
    priced: bool
    open_because: str
    """The reason why more than tokens, images and one search within the limits may be billed; empty if no more is
    billed.
    """
    tiers: tuple[Tier, ...]
    per_image: int
    per_audio_second: int
    per_query: int
    per_search: int
    per_second: int
    fixed: int
    """The amount that `litellm.cost_margin_config` adds to each call."""
    max_output: int | None
    zero: bool
    """Whether every known price is 0."""
    writes_caches: bool
    """Whether the provider may write a cache, and bill it, without being asked."""
    cl100k: bool
    """Whether a local tokenizer counts this model's text exactly."""
    base: str
    """The name that prices this deployment: its base model, if one is given, else the model."""
    prices: Mapping[str, Any]
    """The entry, overridden by the caller's and the deployment's prices; empty if there is none."""
    names: tuple[str, ...]
    """The names under which a budget may limit this model, most specific first."""
    factor: Fraction
    """The factor of margins, discounts and regions on prices."""

    @property
    def closed(self) -> bool:
        """Whether only tokens, images and one search are billed, and max_tokens reaches the provider."""
        return not self.open_because

    def rate(self, *names: str) -> int:
        """Return the highest of these prices; 0 if the entry has none of them."""
        return scaled(dearest_of(self.prices, *names), self.factor)


@dataclass(frozen=True, slots=True)
class _Cached:
    sheet: PriceSheet
    cost_map: dict[str, Any]
    size: int
    entries: tuple[tuple[str, object, object], ...]
    """(key, the entry itself, a copy of it): a new entry can change a price, or a change inside the old one."""
    config: tuple[object, object]


_cache: dict[tuple[PriceKey, object, object], _Cached] = {}


def _fresh(cached: _Cached) -> bool:
    import litellm

    cost_map = litellm.model_cost
    if cost_map is not cached.cost_map or len(cost_map) != cached.size or configs() != cached.config:
        return False
    return all(cost_map.get(key) is entry and entry == copy for key, entry, copy in cached.entries)


def price_sheet(asked: PriceKey, service_tier: object = None, speed: object = None) -> PriceSheet:
    """Return the prices and limits of a deployment. They are read again when LiteLLM's entry or the margin config
    changes. Never raises.
    """
    slot = (asked, service_tier if isinstance(service_tier, str) else None, speed == "fast")
    cached = _cache.get(slot)
    if cached is not None and _fresh(cached):
        return cached.sheet
    if len(_cache) >= _CACHE_SIZE:
        _cache.clear()
    cached = _read(asked, slot[1], fast=slot[2])
    _cache[slot] = cached
    return cached.sheet


def _read(asked: PriceKey, service_tier: str | None, *, fast: bool) -> _Cached:
    import litellm

    cost_map: dict[str, Any] = litellm.model_cost
    config: tuple[object, object] = deepcopy(configs())
    size = len(cost_map)
    model, provider = route(asked.model, asked.provider)
    key = public_key(asked)
    keys = [name for name in (key, asked.deployment) if name and isinstance(cost_map.get(name), dict)]
    entries = tuple((name, cost_map[name], deepcopy(cost_map[name])) for name in dict.fromkeys(keys))
    own = {n: v for name, entry, _ in entries if name == asked.deployment for n, v in entry.items() if v is not None}
    shared = cost_map.get(key or "", {}) if key != asked.deployment else {}
    custom = {**{n: v for n, v in own.items() if "cost" in n}, **asked.custom}
    entry = _merged(shared, own, custom, direct=asked.deployment is None)
    sheet = _sheet(asked, entry, custom, (model, provider, key), service_tier, fast=fast)
    return _Cached(sheet, cost_map, size, entries, config)


def _merged(
    shared: Mapping[str, Any], own: Mapping[str, Any], custom: Mapping[str, Any], *, direct: bool
) -> dict[str, Any]:
    merged = {**shared, **own, **custom}
    both = all(name in custom for name in BOTH_SIDES)
    for name in custom:
        # In direct calls LiteLLM ignores an input or output price without the other one, and also prices of other
        # units. It bills the public ones then. The higher one is the bound.
        unheard = not both and (direct or name in BOTH_SIDES)
        if unheard and dearest_of(shared, name) > dearest_of(merged, name):
            merged[name] = shared[name]
    return merged


def _caps_output(asked: PriceKey, model: str, provider: str | None) -> bool:
    import litellm

    if provider not in providers() or provider in ASKS_NETWORK:
        return provider in ASKS_NETWORK
    if provider in _NATIVE.get(asked.call_type, ()):
        return True
    with suppress(Exception):
        known = litellm.get_supported_openai_params(model=model, custom_llm_provider=provider)
        return known is None or "max_tokens" in known or "max_completion_tokens" in known
    return False


def _open(asked: PriceKey, prices: Mapping[str, Any], name: tuple[str, str | None, str | None], *, timed: bool) -> str:
    model, provider, key = name
    if _OPEN_ENDED.search(f"{provider}/{model} {key}"):
        return "searches, or calls other models, of its own accord"
    if prices.get("output_cost_per_character"):
        return "characters are billed, tokens are limited"
    if provider == "xai":
        # xAI reports reasoning tokens separately from completion_tokens, and does not say whether max_tokens limits
        # them.
        return "reasoning may come on top of the limit"
    if timed:
        return "the time that a call takes is billed"
    if asked.call_type == "embedding" or (asked.call_type in BY_TOKENS and _caps_output(asked, model, provider)):
        return ""
    return "no limit of the output is known to reach the provider"


def _names(asked: PriceKey, model: str, provider: str | None) -> tuple[str, ...]:
    names = [asked.model, model, *([asked.base_model] if asked.base_model else [])]
    if provider:
        names += [f"{provider}/{model}", f"{provider}/*"]
    # Behind gateways, regions, deployments and fine-tunings there is a model that a budget can name.
    for name in (asked.model, asked.base_model or ""):
        names += [name.split("/", depth)[-1] for depth in range(1, name.count("/") + 1)]
    names += [match[1] or match[2] for name in tuple(names) if (match := _BEHIND.fullmatch(name))]
    return tuple(dict.fromkeys(names))


_BEHIND = re.compile(
    r"ft:([^:]+):.*|(?:[a-z]{2,6}\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen|stability|writer)\.(.+)"
)
"""The names of a fine-tuned model, and of one on Bedrock with its region and its maker."""


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None


def _sheet(
    asked: PriceKey,
    entry: Mapping[str, Any],
    custom: Mapping[str, Any],
    name: tuple[str, str | None, str | None],
    service_tier: str | None,
    *,
    fast: bool,
) -> PriceSheet:
    model, provider, key = name
    family = asked.call_type
    priced = is_priced(entry, family)
    given = [attos(custom[side]) for side in BOTH_SIDES if side in custom]
    # A caller who gives both prices as 0 says that the call is free, even if the public entry has cache or tier prices.
    free = len(given) == len(BOTH_SIDES) and not any(given) and family in BY_TOKENS
    prices: Mapping[str, Any] = entry if priced and not free else {}
    margin, fixed = margin_of(provider, discounts=family not in UNDISCOUNTED)
    factor = region_factor(entry, fast=fast) * margin
    seconds = dearest_of(prices, *SECONDS)
    timed = bool(seconds) and not dearest_of(prices, *BOTH_SIDES)
    return PriceSheet(
        model=model,
        provider=provider,
        key=key,
        priced=priced,
        open_because=_open(asked, prices, name, timed=timed),
        tiers=read_tiers(prices, service_tier, factor),
        per_image=scaled(dearest_of(prices, "input_cost_per_image"), factor),
        per_audio_second=scaled(dearest_of(prices, "input_cost_per_audio_per_second"), factor),
        per_query=scaled(dearest_of(prices, "input_cost_per_query"), factor),
        per_search=scaled(search_price(prices, provider), margin) if prices else 0,
        per_second=scaled(seconds, factor) if timed else 0,
        fixed=fixed if priced else 0,
        max_output=_count(entry.get("max_output_tokens")) or _count(entry.get("max_tokens")),
        zero=priced
        and fixed == 0
        and not any(attos(v) for n, v in prices.items() if "cost" in n)
        and not isinstance(prices.get("tiered_pricing"), list),
        # Only Claude's documentation promises that nothing is written without cache_control.
        writes_caches="claude" not in (key or model).lower(),
        cl100k=is_cl100k(provider, key),
        base=asked.base_model or model,
        prices=prices,
        names=_names(asked, model, provider),
        factor=factor,
    )


def model_names(request: Request) -> tuple[str, ...]:
    """Return the names and families that a per-model budget may use for this call, most specific first, without
    repeats.

    They are the name as called, without the provider prefix, the base model, the name under its provider, then the
    family "provider/*".
    """
    return price_sheet(price_key(request)).names
