"""Which entry of LiteLLM's cost map prices a request. Mirrors `select_model_name_for_cost_calc`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from litellm_budget_plugin.pricing.values import Request

# For these LiteLLM's own look-ups ask over the network: huggingface.co, the ollama daemon, an OAuth device login.
ASKS_NETWORK = frozenset({"huggingface", "ollama", "ollama_chat", "github_copilot", "chatgpt", "lemonade"})
_METADATA = ("metadata", "litellm_metadata")


@dataclass(frozen=True, slots=True)
class Selector:
    """Everything of a request that decides its prices; hashable, the key of the terms cache."""

    model: str
    provider: str | None
    base_model: str | None
    deployment: str | None
    custom: tuple[tuple[str, Any], ...]
    """Prices that the caller or the deployment gives, as (field, value), sorted."""
    call_type: str


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _model_info(params: Mapping[str, Any]) -> Mapping[str, Any]:
    info = params.get("model_info")
    if isinstance(info, Mapping) and info:
        return info
    for name in _METADATA:
        metadata = params.get(name)
        if isinstance(metadata, Mapping):
            info = metadata.get("model_info")
            if isinstance(info, Mapping) and info:
                return info
    return {}


@cache
def _price_fields() -> frozenset[str]:
    from litellm.types.utils import CustomPricingLiteLLMParams

    return frozenset(CustomPricingLiteLLMParams.model_fields)


def _custom(params: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    fields = _price_fields()
    if fields.isdisjoint(params) and (not info or fields.isdisjoint(info)):
        return ()
    found: dict[str, Any] = {}
    # The caller's own arguments are laid over the deployment's, as LiteLLM registers them last.
    for source in (info, params):
        for name in fields.intersection(source):
            value = source[name]
            if value is not None:
                found[name] = value if isinstance(value, (int, float, str)) else _Frozen(value)
    return tuple(sorted(found.items(), key=lambda item: item[0]))


class _Frozen:
    """A list or mapping of prices inside a hashable selector; equal when it prints the same."""

    __slots__ = ("text", "value")

    def __init__(self, value: object) -> None:
        self.value = value
        self.text = repr(value)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and other.text == self.text


def custom_prices(selector: Selector) -> dict[str, Any]:
    """The caller's and the deployment's own prices by field name."""
    return {name: value.value if isinstance(value, _Frozen) else value for name, value in selector.custom}


def select(request: Request) -> Selector:
    """What decides the prices of this request. Never raises."""
    params = request.params
    info = _model_info(params)
    base = _text(params.get("base_model"))
    deployment = None
    if info:
        base = base or _text(info.get("base_model"))
        deployment = _text(info.get("id"))
    model = request.model if isinstance(request.model, str) else str(request.model)
    if request.call_type == "search" and "/" not in model:
        # `litellm.search` has no model; LiteLLM prices "tavily/search".
        model = f"{_text(params.get('search_provider')) or model}/search"
    provider = request.provider or _text(params.get("custom_llm_provider"))
    return Selector(model, provider, base, deployment, _custom(params, info), request.call_type)


@cache
def providers() -> frozenset[str]:
    """The providers that the installed LiteLLM can route to."""
    import litellm

    return frozenset(str(getattr(name, "value", name)) for name in litellm.provider_list)


def route(model: str, provider: str | None) -> tuple[str, str | None]:
    """The model without its provider prefix, and the provider, as LiteLLM will route them."""
    import litellm

    if provider is not None:
        return model.removeprefix(f"{provider}/"), provider
    head, _, rest = model.partition("/")
    if rest and head in providers():
        return rest, head
    entry = litellm.model_cost.get(model)
    listed = entry.get("litellm_provider") if isinstance(entry, dict) else None
    # For a bare unknown name get_llm_provider prints a help text and raises; a Router group is such a name.
    if (entry is None and not model.startswith("ft:")) or listed in ASKS_NETWORK or rest:
        return model, _text(listed)
    with suppress(Exception):
        stripped, found, _, _ = litellm.get_llm_provider(model=model)
        return _text(stripped) or model, _text(found)
    return model, _text(listed)


@cache
def _together_is_listed() -> bool:
    # Older LiteLLM bills every Together model by its size, whatever its own entry says.
    from litellm.llms.together_ai import cost_calculator

    return hasattr(cost_calculator, "has_together_registry_pricing")


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
    """The key in `litellm.model_cost` that prices this name, or None. Asks nobody over the network."""
    import litellm

    stripped = name.removeprefix(f"{provider}/") if provider else name
    if provider == "together_ai" and not _together_is_listed():
        with suppress(Exception):
            category = _by_category(stripped, provider, call_type)
            if category in litellm.model_cost:
                return category
    # Without a provider that it knows, get_model_info would guess one, and print a help text when it cannot.
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


def model_names(request: Request) -> tuple[str, ...]:
    """Names and families that a per-model budget may use for this call, most specific first, without repeats.

    As called, without the provider prefix, the base model, the name under its provider, then the family "provider/*".
    """
    from litellm_budget_plugin.pricing.terms import terms_of

    selector = select(request)
    terms = terms_of(selector)
    names = [selector.model, terms.model]
    if selector.base_model:
        names.append(selector.base_model)
    if terms.provider:
        names += [f"{terms.provider}/{terms.model}", f"{terms.provider}/*"]
    return tuple(dict.fromkeys(names))
