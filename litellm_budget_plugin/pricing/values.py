"""The values that go into and come out of pricing. Money is in nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """What the gate knows of one call."""

    call_type: str
    """"completion", "text_completion" or "embedding", with the async names already folded in."""
    model: str
    """As passed to LiteLLM: "gpt-4o", "openai/gpt-4o", "azure/my-deployment"."""
    provider: str | None
    """The `custom_llm_provider` argument, if any."""
    params: Mapping[str, Any]
    """Every keyword argument of the call. Never changed and never consumed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that one call may cost, and what it costs if only its input is billed."""

    usd: int
    """Nano-dollars, rounded up: no answer within the stated limits costs more, if `bounded`."""
    floor: int
    """Nano-dollars: the input side as probably billed, never above `usd`."""
    tokens: int
    """The upper bound of tokens, input and output."""
    floor_tokens: int
    """Input tokens as probably billed."""
    priced: bool
    """A price is known; zero counts when LiteLLM's entry or the caller says 0."""
    bounded: bool
    """The bound is shown to hold for this request."""
    loose: bool
    """`exact=True` would give a tighter bound."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call did cost."""

    usd: int | None
    """Nano-dollars; None when the price is unknown."""
    model: str
    """The response's model name, the key of BudgetManager's `model_cost`."""
    input_tokens: int
    output_tokens: int
    estimated: bool
    """Counted from text here, because the provider reported no usage."""
