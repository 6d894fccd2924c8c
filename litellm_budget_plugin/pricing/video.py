"""Videos: seconds times the price of one."""

from __future__ import annotations

from typing import Any

from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.rates import attos, scaled
from litellm_budget_plugin.pricing.unit_estimate import UnitCost, count, nested
from litellm_budget_plugin.pricing.units import VIDEO
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

_SECONDS = ("seconds", "duration", "duration_seconds", "durationSeconds")
_COPIES = ("n", "sampleCount", "sample_count", "video_count")
# Longest default of a documented model (Runway, 10 seconds; Veo 8, Sora 4), and the shortest.
_GENEROUS, _LEAST = 10, 4


def estimate(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Seconds times the dearest rate of any resolution. Without seconds the provider decides: then ten are reckoned, and
    not less than UNBOUNDED_HOLD is held. A video is made whether or not its maker waits: a lost answer is charged in full,
    at the lowest rate.
    """
    parts = list(nested(request.params))
    stated = max((found for part in parts if (found := count(part, *_SECONDS))), default=None)
    copies = max((found for part in parts if (found := count(part, *_COPIES))), default=1)
    rates = [rate for name, value in sheet.prices.items() if name.startswith(VIDEO) and (rate := _rate(value, sheet))]
    image = sheet.per_image if request.params.get("input_reference") else 0
    cost = UnitCost(
        most=(stated or _GENEROUS) * copies * max(rates, default=0) + image,
        floor=(stated or _LEAST) * copies * min(rates, default=0),
        known=stated is not None,
        copies=copies,
        seconds=stated or _GENEROUS,
    )
    return cost.estimate(sheet, options)


def _rate(value: Any, sheet: PriceSheet) -> int:
    return scaled(attos(value) or 0, sheet.factor)
