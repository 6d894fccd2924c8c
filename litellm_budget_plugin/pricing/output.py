"""How many tokens the answer to a request may have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litellm_budget_plugin.pricing.terms import Terms
from litellm_budget_plugin.pricing.values import Request

_LIMITS = ("max_completion_tokens", "max_tokens")
_MOST_TOKENS = 10**9
_MOST_CHOICES = 10**4
# LiteLLM sets max_tokens to the thinking budget plus its DEFAULT_MAX_TOKENS when the caller gives no limit.
_BESIDE_THINKING = 4096


def _limit(params: Mapping[str, Any]) -> int:
    dropped = params.get("additional_drop_params")
    found = 0
    for name in _LIMITS:
        value = params.get(name)
        if isinstance(dropped, (list, tuple)) and name in dropped:
            continue
        # The larger counts: which of the two a provider honours differs.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS:
            found = max(found, int(value) if value == int(value) else int(value) + 1)
    return found


def _choices(params: Mapping[str, Any], *, best_of: bool) -> int:
    most = 1
    for name in ("n", "best_of") if best_of else ("n",):
        value = params.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_CHOICES:
            most = max(most, value)
    return most


def _unlimited(params: Mapping[str, Any], terms: Terms, allowance: int) -> int:
    tokens = min(allowance, terms.max_output) if terms.max_output else allowance
    thinking = params.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if isinstance(budget, int) and not isinstance(budget, bool) and 0 < budget <= _MOST_TOKENS:
        tokens = max(tokens, budget + _BESIDE_THINKING)
    return max(tokens, 0)


def _predicted(prediction: object) -> int:
    try:
        return len(json.dumps(prediction, default=repr))
    except (ValueError, RecursionError, TypeError):
        return len(repr(type(prediction)))


def output_bound(request: Request, terms: Terms, allowance: int, input_tokens: int, prompts: int) -> tuple[int, bool]:
    """(tokens of all choices, whether the request itself limits them). Thinking lies inside max_tokens."""
    params = request.params
    limit = _limit(params)
    text = request.call_type == "text_completion"
    choices = _choices(params, best_of=text)
    tokens = limit or _unlimited(params, terms, allowance)
    if params.get("prediction"):
        # Rejected prediction tokens are billed as output beside the answer.
        tokens += _predicted(params["prediction"])
    tokens *= choices * prompts
    if text and params.get("echo"):
        tokens += input_tokens * choices
    return tokens, limit > 0
