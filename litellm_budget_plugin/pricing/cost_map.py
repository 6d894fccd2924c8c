"""The prices that apply to a request: the entry of LiteLLM's cost map and the call's and the deployment's own prices.

`price_key(request)` collects everything that decides the prices, in hashable form. `effective_entry(key)` is the
cost-map entry with its fields overridden by the own prices. `litellm_cost.token_cost(key, ...)` asks LiteLLM for the
cost of a usage under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from litellm_budget_plugin.pricing.rates import BOTH_SIDES
from litellm_budget_plugin.pricing.values import Request

# For these, LiteLLM's own look-ups use the network: huggingface.co, the ollama daemon, an OAuth device login.
ASKS_NETWORK = frozenset({"huggingface", "ollama", "ollama_chat", "github_copilot", "chatgpt", "lemonade"})


@dataclass(frozen=True, slots=True)
class PriceKey:
    """Everything in a request that decides its prices. Hashable, to be a key of caches."""

    model: str
    provider: str | None
    base_model: str | None
    deployment: str | None
    custom: Mapping[str, Any] = field(compare=False)
    """Prices that the caller or the deployment gives, by field."""
    printed: str
    """`custom` as text, for comparisons: a price can be a list or a mapping."""
    call_type: str


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _model_info(params: Mapping[str, Any]) -> Mapping[str, Any]:
    for source in (params, params.get("metadata"), params.get("litellm_metadata")):
        info = source.get("model_info") if isinstance(source, Mapping) else None
        if isinstance(info, Mapping) and info:
            return info
    return {}


@cache
def _call_fields() -> frozenset[str]:
    """Return the prices that LiteLLM takes from the arguments of a call."""
    from litellm.types.utils import CustomPricingLiteLLMParams

    return frozenset(CustomPricingLiteLLMParams.model_fields)


@cache
def _entry_fields() -> frozenset[str]:
    """Return every field with a price in LiteLLM's cost map. A deployment's model_info may have them as well."""
    import litellm

    names = {name for entry in list(litellm.model_cost.values()) for name in entry}
    return _call_fields() | {name for name in names if "cost" in name or "pricing" in name or "multiplier" in name}


def _custom(params: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    if _call_fields().isdisjoint(params) and (not info or _entry_fields().isdisjoint(info)):
        return {}
    found: dict[str, Any] = {}
    # The caller's own arguments override the deployment's, because LiteLLM registers them last.
    for source, fields in ((info, _entry_fields()), (params, _call_fields())):
        found |= {name: source[name] for name in fields.intersection(source) if source[name] is not None}
    return found


def price_key(request: Request) -> PriceKey:
    """Return what decides the prices of this request. Never raises."""
    if request.key is None:
        object.__setattr__(request, "key", _read_key(request))
    assert request.key is not None
    return request.key


def _read_key(request: Request) -> PriceKey:
    params = request.params
    info = _model_info(params)
    base = _text(params.get("base_model"))
    deployment = None
    if info:
        base = base or _text(info.get("base_model"))
        deployment = _text(info.get("id"))
    model = request.model if isinstance(request.model, str) else str(request.model)
    if request.call_type == "search" and "/" not in model:
        # `litellm.search` has no model. LiteLLM prices "tavily/search".
        model = f"{_text(params.get('search_provider')) or model}/search"
    provider = request.provider or _text(params.get("custom_llm_provider"))
    custom = _custom(params, info)
    printed = repr(sorted(custom.items())) if custom else ""
    return PriceKey(model, provider, base, deployment, custom, printed, request.call_type)


@cache
def providers() -> frozenset[str]:
    """Return the providers that the installed LiteLLM can route to."""
    import litellm

    return frozenset(str(getattr(name, "value", name)) for name in litellm.provider_list)


def route(model: str, provider: str | None) -> tuple[str, str | None]:
    """Return the model without its provider prefix, and the provider, as LiteLLM will route them."""
    import litellm

    if provider is not None:
        return model.removeprefix(f"{provider}/"), provider
    head, _, rest = model.partition("/")
    if rest and head in providers():
        return rest, head
    entry = litellm.model_cost.get(model)
    listed = entry.get("litellm_provider") if isinstance(entry, dict) else None
    # For an unknown name without a provider, get_llm_provider prints a help text and raises. A Router group is such a
    # name.
    if (entry is None and not model.startswith("ft:")) or listed in ASKS_NETWORK or rest:
        return model, _text(listed)
    with suppress(Exception):
        stripped, found, _, _ = litellm.get_llm_provider(model=model)
        return _text(stripped) or model, _text(found)
    return model, _text(listed)


def _by_category(model: str, provider: str | None, call_type: str) -> str | None:
    if provider == "together_ai":
        from litellm.llms.together_ai.cost_calculator import get_model_params_and_category
        from litellm.types.utils import CallTypes

        kind = CallTypes.embedding if call_type == "embedding" else CallTypes.completion
        return _text(get_model_params_and_category(model, call_type=kind))
    if provider == "fireworks_ai":
        from litellm.llms.fireworks_ai.cost_calculator import get_base_model_for_pricing

        return _text(get_base_model_for_pricing(model))
    return None


def find_key(name: str, provider: str | None, call_type: str) -> str | None:
    """Return the key in `litellm.model_cost` that prices this name, or None. Never uses the network."""
    import litellm

    stripped = name.removeprefix(f"{provider}/") if provider else name
    # Without a provider that it knows, get_model_info would guess one, and would print a help text if it cannot.
    if provider in providers() and provider not in ASKS_NETWORK:
        for candidate in dict.fromkeys((name, stripped)):
            with suppress(Exception):
                key = litellm.get_model_info(model=candidate, custom_llm_provider=provider)["key"]
                if key in litellm.model_cost:
                    return str(key)
    names = [f"{provider}/{stripped}", name, stripped]
    with suppress(Exception):
        names.append(_by_category(stripped, provider, call_type) or name)
    return next((key for key in names if key in litellm.model_cost), None)


def public_key(key: PriceKey) -> str | None:
    """Return the cost map's key that prices this request by its base model, else by its model; None if there is none."""
    model, provider = route(key.model, key.provider)
    found = find_key(key.base_model or model, provider, key.call_type)
    if found is None and key.base_model:
        found = find_key(key.base_model, route(key.base_model, None)[1], key.call_type)
    return found


def registered_entry(key: PriceKey) -> Mapping[str, Any] | None:
    """Return the entry that a Router has registered for its deployment, if it contains a price."""
    import litellm

    entry = litellm.model_cost.get(key.deployment) if key.deployment else None
    if isinstance(entry, dict) and any(value is not None for name, value in entry.items() if "cost" in name):
        return entry
    return None


def _given_entry(key: PriceKey) -> Mapping[str, Any]:
    import litellm

    return registered_entry(key) or litellm.model_cost.get(public_key(key) or "") or {}


def effective_entry(key: PriceKey) -> dict[str, Any]:
    """Return the prices of this request: all fields of its cost-map entry, overridden by its own prices. Empty if none
    is known.

    It follows LiteLLM: if a Router registered a deployment with prices, only these count. The own prices of any other
    call override the public entry, so fields that they do not name keep the public price. A call that gives both its
    input and its output price as 0, and no other price, is free.
    """
    base, own = _given_entry(key), key.custom
    if own and not any(own.values()) and all(own.get(side) is not None for side in BOTH_SIDES):
        base = {name: value for name, value in base.items() if "cost" not in name and "pricing" not in name}
    return {**base, **own}


def are_registered(key: PriceKey) -> bool:
    """Return whether LiteLLM has all of this request's own prices in the entry by which it prices the request."""
    entry = _given_entry(key)
    return all(entry.get(name) == value for name, value in key.custom.items())
