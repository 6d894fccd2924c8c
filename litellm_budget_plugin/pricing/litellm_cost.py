"""The price of a usage or an answer by LiteLLM's own cost functions, under any set of prices.

    token_cost(key, usage)                       nano-dollars of a chat, text, embedding, Responses, ... usage, or None
    token_cost(key, usage, answer=response)      with the searches and other built-in tools that the answer shows
    answer_cost(key, answer, call_type=...)      nano-dollars of images, speech, transcripts, reranking, pages, searches, videos
    logged_cost(logging_obj, response)           what the call's own Logging object says

`key` is `cost_map.price_key(request)`. Without own prices LiteLLM uses its cost map as always. With own prices
(`key.custom`) the whole `cost_map.effective_entry(key)` is put into `litellm.model_cost` under a private name made from
its content, and LiteLLM is asked for that name. So every field that LiteLLM knows counts (cache writes, one hour,
thresholds, service tiers, sound, images, reasoning, seconds, tiers), on every version, whatever else has been
registered or has replaced the map. `usage` is LiteLLM's `Usage` or a mapping with its fields. The figure includes
LiteLLM's margins and discounts. All return None if LiteLLM knows no price, never raise and never use the network.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from litellm_budget_plugin.pricing.cost_map import (
    ASKS_NETWORK,
    PriceKey,
    effective_entry,
    find_key,
    providers,
    public_key,
    registered_entry,
    route,
)
from litellm_budget_plugin.pricing.rates import SECONDS, is_priced
from litellm_budget_plugin.pricing.usage import nanos

# A provider of LiteLLM's without a cost function of its own: only the entry's fields count.
_PLAIN_PROVIDER = "custom_openai"
_MOST_PRIVATE = 1024


class _Priced(NamedTuple):
    """A name that LiteLLM can price."""

    name: str
    provider: str
    entry: Mapping[str, Any]
    own: bool
    """Whether only the entry counts, whatever model the answer names."""


_private: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def token_cost(
    key: PriceKey,
    usage: Any,
    *,
    answer: object = None,
    answered: str | None = None,
    service_tier: object = None,
    call_type: str = "completion",
    milliseconds: object = None,
) -> int | None:
    """Return the nano-dollars of this usage, rounded half to even; None if its price is unknown.

    `answered` is the model that an answer names. LiteLLM prices it before the request's model, unless the request has a
    base model or prices of its own. `milliseconds` is the duration of the call, for prices by the second.
    """
    time = milliseconds if isinstance(milliseconds, (int, float)) else 0.0
    for priced in _names(key, answered):
        # An answer can name a provider under which LiteLLM has no price. Its usage alone can still be priced.
        for source in (answer, None) if answer is not None else (None,):
            response = with_usage(source, usage, priced.name)
            options = {"service_tier": service_tier}
            found = _ask(priced, response, call_type, optional_params=options, total_time=time)
            timed = not time and any(priced.entry.get(field) for field in SECONDS)
            if found or (found == 0 and not timed):
                return found
    return None


def answer_cost(
    key: PriceKey, answer: object, *, call_type: str, answered: str | None = None, usage: Any = None, **asked: Any
) -> int | None:
    """Return the nano-dollars of an answer that is billed by other units, as LiteLLM's own object. `asked` is for
    `completion_cost`.

    With `usage`, that is priced instead of the answer. None if LiteLLM prices it at nothing, because it also returns 0
    when it sees no quantity.
    """
    model, provider = route(key.model, key.provider)
    if key.custom:
        # A unit can be priced in several fields, of which LiteLLM takes one. A public price may hide an own price.
        names = [_registered(key, provider, entry) for entry in (effective_entry(key), dict(key.custom))]
        return max(_answered(priced, answer, call_type, usage, asked) or 0 for priced in names) or None
    # LiteLLM itself finds the entry for one size of a picture, under names that nobody calls.
    plain = _Priced(key.base_model or model, provider or _PLAIN_PROVIDER, {}, own=False)
    for priced in (*_names(key, answered), plain):
        found = _answered(priced, answer, call_type, usage, asked)
        if found:
            return found
    return None


def _answered(priced: _Priced, answer: object, call_type: str, usage: Any, asked: dict[str, Any]) -> int | None:
    return _ask(priced, answer if usage is None else with_usage(None, usage, priced.name), call_type, **asked)


def logged_cost(logging_obj: Any, response: object) -> int | None:
    """Return the nano-dollars of a response by the call's own Logging object, which knows its region and deployment.
    None if it gives no cost.
    """
    calculator = getattr(logging_obj, "_response_cost_calculator", None)
    if calculator is None or response is None:
        return None
    try:
        return nanos(calculator(result=response)) or None
    except Exception:  # noqa: BLE001  # LiteLLM raises plain Exception for what it cannot price
        return None


def _names(key: PriceKey, answered: str | None) -> Iterator[_Priced]:
    import litellm

    _, provider = route(key.model, key.provider)
    if key.custom:
        entry = effective_entry(key)
        if is_priced(entry, key.call_type):
            # A provider's own cost function may only know its own models.
            yield from (_registered(key, served_by, entry) for served_by in (provider, _PLAIN_PROVIDER))
        return
    deployed = registered_entry(key)
    if deployed is not None and key.deployment and is_priced(deployed, key.call_type):
        yield _Priced(key.deployment, provider or _PLAIN_PROVIDER, deployed, own=True)
    found = None if key.base_model or not answered else find_key(answered, provider, key.call_type)
    for name in dict.fromkeys((found, public_key(key))):
        public = litellm.model_cost.get(name) if name else None
        if name and isinstance(public, dict) and is_priced(public, key.call_type):
            yield _Priced(name, provider or str(public.get("litellm_provider")), public, own=False)


def _registered(key: PriceKey, provider: str | None, entry: dict[str, Any]) -> _Priced:
    """Put these prices under a private name into LiteLLM's map. `register_model` would also write its lists and shared
    names.
    """
    import litellm

    if provider not in providers() or provider in ASKS_NETWORK:
        provider = _PLAIN_PROVIDER
    model = (key.base_model or key.model).removeprefix(f"{provider}/")
    entry = {**entry, "litellm_provider": provider}
    digest = hashlib.sha256(repr(sorted(entry.items(), key=lambda item: item[0])).encode()).hexdigest()[:16]
    # The name contains the model, because some of LiteLLM's cost functions read it there.
    name = f"{provider}/{model}#{digest}"
    with _lock:
        if name not in litellm.model_cost:
            litellm.model_cost[name] = entry
        _private[name] = None
        _private.move_to_end(name)
        if len(_private) > _MOST_PRIVATE:
            litellm.model_cost.pop(_private.popitem(last=False)[0], None)
    return _Priced(name, provider, entry, own=True)


def _ask(priced: _Priced, response: Any, call_type: str, **asked: Any) -> int | None:
    import litellm

    if priced.own:
        asked |= {"custom_pricing": True, "router_model_id": priced.name}
    try:
        cost = litellm.completion_cost(
            completion_response=response,
            model=priced.name,
            custom_llm_provider=priced.provider,
            call_type=call_type,
            **asked,
        )
    except Exception:  # noqa: BLE001  # LiteLLM raises plain Exception for what it cannot price
        return None
    return nanos(cost)


def with_usage(answer: object, usage: Any, name: str) -> Any:
    """Return LiteLLM's own object with this usage: the answer, whose items are priced as well, or an empty one."""
    import litellm
    from litellm.types.llms.openai import ResponsesAPIResponse

    if isinstance(usage, Mapping):
        read, wrote = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        plain = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        # The cost that a provider states is not wanted here, and some of LiteLLM's functions would return it.
        told = {n: v for n, v in usage.items() if v is not None and n not in ("cost", "cost_in_usd_ticks")}
        try:
            usage = litellm.Usage(**{**plain, **told})
        except Exception:  # noqa: BLE001  # details in a form that LiteLLM does not know
            usage = litellm.Usage(**plain)
    if isinstance(answer, Mapping) and answer.get("object") == "response":
        with suppress(Exception):
            answer = ResponsesAPIResponse(**answer)
    if isinstance(answer, (litellm.ModelResponse, ResponsesAPIResponse)):
        response: Any = answer.model_copy()
        # Otherwise LiteLLM would price by the provider that it notes here.
        hidden = getattr(response, "_hidden_params", None) or {}
        response._hidden_params = {n: v for n, v in hidden.items() if n != "custom_llm_provider"}  # noqa: SLF001
    else:
        response = litellm.ModelResponse(model=name)
    response.usage = usage
    return response
