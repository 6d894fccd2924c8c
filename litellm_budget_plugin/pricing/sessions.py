"""Moderation, which is free, and realtime sessions, of which nothing is known when they begin."""

from __future__ import annotations

from litellm_budget_plugin.pricing.quantities import Bill
from litellm_budget_plugin.pricing.terms import Terms
from litellm_budget_plugin.pricing.values import Estimate, Options, Request


def estimate_moderation(_request: Request, _terms: Terms, _options: Options) -> Estimate:
    """OpenAI's moderation costs nothing, whatever is moderated, and LiteLLM charges nothing for any other's."""
    return Estimate(0, 0, 0, 0, priced=True, bounded=True, loose=False)


def estimate_realtime(_request: Request, terms: Terms, options: Options) -> Estimate:
    """A session may last for hours, and nothing of it is visible at its start: UNBOUNDED_HOLD. A lost one costs nothing."""
    return Bill(known=False).estimate(terms, options)
