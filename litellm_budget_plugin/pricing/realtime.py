"""Moderation, which is free, and realtime sessions, of which nothing is known when they begin."""

from __future__ import annotations

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.unit_estimate import UnitCost
from litellm_budget_plugin.pricing.values import Estimate, Options, Request


def estimate_moderation(_request: Request, _sheet: PriceSheet, _options: Options) -> Estimate:
    """OpenAI's moderation costs nothing, whatever is moderated, and LiteLLM charges nothing for any other's."""
    return Estimate(0, 0, 0, 0, priced=True, bounded=True, loose=False)


def estimate_realtime(_request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """A session may last for hours, and nothing of it is visible at its start: UNBOUNDED_HOLD. A lost one costs nothing."""
    return UnitCost(known=False).estimate(sheet, options)
