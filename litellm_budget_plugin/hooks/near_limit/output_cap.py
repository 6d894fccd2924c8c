"""Capping: lower the output limit that a call sends, so that its greatest cost fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from litellm_budget_plugin import pricing
from litellm_budget_plugin.pricing import Request
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.price_sheet import price_sheet
from litellm_budget_plugin.settings import BudgetSettings

# The arguments that limit the output, by the family of the call. The first is set if the caller gives none. LiteLLM
# maps max_tokens to what a model takes (max_completion_tokens for OpenAI's reasoning models).
LIMITS = {
    "completion": ("max_tokens", "max_completion_tokens"),
    "text_completion": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
# Providers' own names for the same limit. If there are two limits, it is unknown which one counts.
_OTHER_NAMES = frozenset(
    {"max_output_tokens", "maxOutputTokens", "max_new_tokens", "max_gen_len", "max_tokens_to_sample", "num_predict"}
)
_EFFORTS = ("reasoning_effort", "reasoning")
_MOST_TOKENS = 10**9


class OutputCap(NamedTuple):
    """The range for one call's output limit, in tokens for each choice."""

    names: tuple[str, ...]
    """The arguments that carry the limit."""
    least: int
    """The lowest limit that is set: MIN_OUTPUT in addition to a thinking budget, or the caller's own limit if that is
    smaller.
    """
    most: int
    """The caller's limit, else what is held for a call without one."""
    maximum: int | None
    """The most that the model can write, if LiteLLM's cost map says so."""
    stated: bool
    """Whether the caller gives a limit."""

    @property
    def open(self) -> bool:
        """Whether the unchanged call can answer with more than `most`."""
        return not self.stated and (self.maximum is None or self.maximum > self.most)

    def on(self, request: Request, tokens: int) -> Request:
        """Return the request with its limit lowered to `tokens`, never raised."""
        limits = {name: _lower(request.params.get(name), tokens) for name in self.names}
        return replace(request, params={**request.params, **limits})


def _lower(given: Any, tokens: int) -> Any:
    return tokens if given is None else min(given, tokens)


def output_cap_for(request: Request, settings: BudgetSettings, fixed: frozenset[str]) -> OutputCap | None:
    """Return how far the call's output limit can be lowered; None if it cannot be lowered.

    `fixed` are the arguments that cannot be changed. Not capped: a call with an unknown thinking budget, or whose limit
    would not certainly reach the provider and bound the cost.
    """
    names = LIMITS.get(request.call_type, ())
    given = _given(request.params, names)
    budget = _thinking_budget(request.params)
    if given is None or budget is None or not fixed.isdisjoint(names):
        return None
    maximum = price_sheet(price_key(request)).max_output
    least = budget + settings.min_output
    if given:
        most = max(given.values())
    else:
        most = min(settings.output_allowance, maximum or settings.output_allowance)
        most = max(most, least) if budget else most
    cap = OutputCap(tuple(given) or names[:1], min(least, most), most, maximum, stated=bool(given))
    limited = pricing.estimate(
        cap.on(request, most),
        output_allowance=settings.output_allowance,
        unbounded_hold=settings.unbounded_hold_nanos,
    )
    return cap if limited.bounded else None


def _given(params: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, int] | None:
    """Return the caller's own limits; None if one is not understood, or is not sent."""
    given = {name: params[name] for name in names if params.get(name) is not None}
    dropped = params.get("additional_drop_params") or ()
    others = _OTHER_NAMES.difference(names)
    if not names or any(name in dropped for name in names) or any(params.get(name) is not None for name in others):
        return None
    understood = all(type(value) is int and 0 < value <= _MOST_TOKENS for value in given.values())
    return given if understood else None


def _thinking_budget(params: Mapping[str, Any]) -> int | None:
    """Return the tokens that the caller reserves for thinking, 0 for none; None if thinking is asked for without an
    amount.
    """
    config = params.get("output_config")
    effort = config.get("effort") if isinstance(config, Mapping) else None
    if any(asked not in (None, "none", "disable") for asked in (effort, *map(params.get, _EFFORTS))):
        return None
    thinking = params.get("thinking")
    if thinking is None:
        return 0
    kind, budget = (
        (thinking.get("type"), thinking.get("budget_tokens")) if isinstance(thinking, Mapping) else (None, None)
    )
    if kind == "disabled":
        return 0
    return budget if type(budget) is int and 0 < budget <= _MOST_TOKENS else None
