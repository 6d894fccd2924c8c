"""The token usage that a provider reports, and functions to read fields of any answer of LiteLLM or a provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from litellm_budget_plugin.core.money import NANOS_PER_USD, charge_nanos
from litellm_budget_plugin.errors import BudgetInputError

_CACHE_FIELDS = ("cache_creation_input_tokens", "cache_read_input_tokens")
# https://docs.x.ai/developers/cost-tracking
_TICKS_PER_USD = 10_000_000_000


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that a provider reported."""

    input: int
    output: int
    raw: Mapping[str, Any]
    """The fields of LiteLLM's `Usage`, with the details that prices depend on."""
    cost: int | None = None
    """Nano-dollars that the provider states in its usage."""


def field(value: object, name: str) -> Any:
    """Return a field of a dictionary or an object; None if it has none of this name."""
    if isinstance(value, dict):
        return value.get(name)
    if value is None:
        return None
    try:
        fields = getattr(value, "__dict__", None)
        if fields is not None and name in fields:
            return fields[name]
        if hasattr(value, "__pydantic_fields_set__"):
            return _beside_the_fields(value, name)
        return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    except Exception:  # noqa: BLE001  # a property of other code: it must not keep the cost of a call from being found
        return None


def first(value: object, *names: str) -> Any:
    """Return the first of these fields that exists and is not None."""
    return next((found for name in names if (found := field(value, name)) is not None), None)


def _beside_the_fields(value: object, name: str) -> Any:
    # Pydantic takes microseconds to find that it has no such field.
    for part in ("__pydantic_extra__", "__pydantic_private__"):
        more = getattr(value, part, None)
        if more and name in more:
            return more[name]
    return getattr(value, name, None) if hasattr(type(value), name) else None


def number(value: object) -> int | None:
    """Return a count of tokens; None for any other value."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def nanos(usd: object) -> int | None:
    """Return a cost in USD as nano-dollars; None for anything but a finite number that is not negative."""
    if isinstance(usd, bool) or not isinstance(usd, (int, float)):
        return None
    try:
        return charge_nanos(usd)
    except BudgetInputError:
        return None


def stated_cost(usage: object) -> int | None:
    """Return the nano-dollars that a provider states in its usage: `cost`, which is a number or a breakdown with a
    total, or xAI's ticks.
    """
    cost = field(usage, "cost")
    if cost is not None:
        found = nanos(cost.get("total_cost") if isinstance(cost, Mapping) else cost)
        if found is not None:
            return found
    ticks = number(field(usage, "cost_in_usd_ticks"))
    return None if ticks is None else nanos(ticks / _TICKS_PER_USD if ticks < _TICKS_PER_USD * NANOS_PER_USD else None)


def as_mapping(value: object) -> Mapping[str, Any] | None:
    """Return an object with fields as a dictionary without the unset ones."""
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if item is not None}
    for name in ("model_dump", "dict"):
        dump = getattr(value, name, None)
        if callable(dump):
            with suppress(Exception):
                found = dump()
                if isinstance(found, Mapping):
                    return {key: item for key, item in found.items() if item is not None}
    return None


def read_usage(answer: object) -> TokenUsage | None:
    """Return the usage of an answer in OpenAI's or Anthropic's form; None if it is missing or all zero."""
    usage = as_mapping(field(answer, "usage"))
    if not usage:
        return None
    if "input_tokens" in usage and "prompt_tokens" not in usage:
        return _from_anthropic(usage)
    read, wrote = number(usage.get("prompt_tokens")), number(usage.get("completion_tokens"))
    total = number(usage.get("total_tokens"))
    if read is None and wrote is None and total:
        read = total
    return token_usage(read or 0, wrote or 0, usage, stated_cost(usage))


def token_usage(read: int, wrote: int, raw: Mapping[str, Any], cost: int | None = None) -> TokenUsage | None:
    """Return tokens with their details; None if nothing is reported."""
    if not read and not wrote and not cost:
        return None
    return TokenUsage(read, wrote, {**raw, "prompt_tokens": read, "completion_tokens": wrote}, cost)


def _from_anthropic(usage: Mapping[str, Any]) -> TokenUsage | None:
    """Anthropic counts cached input in addition to input_tokens, LiteLLM counts it inside prompt_tokens."""
    import litellm

    with suppress(Exception):
        raw = litellm.AnthropicConfig().calculate_usage(usage_object=usage, reasoning_content=None).model_dump()
        return token_usage(raw["prompt_tokens"], raw["completion_tokens"], as_mapping(raw) or {}, stated_cost(usage))
    caches = {name: number(usage.get(name)) or 0 for name in _CACHE_FIELDS}
    read = (number(usage.get("input_tokens")) or 0) + sum(caches.values())
    details = {name: value for name, value in caches.items() if value}
    return token_usage(read, number(usage.get("output_tokens")) or 0, details, stated_cost(usage))


def parse_raw(original: object) -> object:
    """Return the answer in the original_response of `Logging.post_call`: a dictionary, an object, or parsed JSON text;
    else None.
    """
    if isinstance(original, (str, bytes)):
        try:
            return json.loads(original)
        except (ValueError, RecursionError):
            return None
    return original
