"""Ways to make a refused call small enough, if it states no output limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.commands import Refused
from litellm_budget_plugin.hooks.exceptions import WaysOut
from litellm_budget_plugin.hooks.near_limit.output_cap import LIMITS, output_cap_for
from litellm_budget_plugin.hooks.near_limit.plan import want_of
from litellm_budget_plugin.pricing import Estimate, Request

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.call import Call


def ways_out(call: Call, refused: Refused) -> WaysOut | None:
    """Return the output tokens that would have been held for the call, and the ways out that make it fit what is free
    now.

    None if the call states a limit, or if the refusing account does not count its output.
    """
    unit = refused.account.unit
    if refused.reason == "blocked" or unit == "calls":
        return None
    settings = call.ledger.settings
    full = max((_estimate(call, each, settings.output_allowance) for each in call.candidates), key=_usd, default=None)
    if full is None or not full.assumed:
        return None
    room = refused.limit - refused.spent - refused.held

    def fits(smaller: Estimate) -> bool:
        """Return whether the call would fit with an output as short as in this estimate. Its input was counted exactly."""
        return 0 < room >= refused.requested - (want_of(full).of(unit) - want_of(smaller).of(unit))

    shortest = max((_estimate(call, each, 1) for each in call.candidates), key=_usd)
    capping = call.plan is not None and call.plan.caps
    ways = []
    if fits(shortest):
        ways.append(f"give {LIMITS.get(call.request.call_type, ('an output limit',))[0]}")
    if not settings.cap_output and call.first and not call.to_be_routed and len(call.candidates) == 1:
        capped = _capped(call, call.request)
        if capped is not None and fits(capped):
            ways.append("set LITELLM_BUDGET_CAP_OUTPUT=true")
    if fits(shortest) and full.assumed == settings.output_allowance > 1 and not capping:
        ways.append(f"set LITELLM_BUDGET_OUTPUT_ALLOWANCE below {settings.output_allowance:,}")
    return WaysOut(full.assumed, tuple(ways))


def _capped(call: Call, request: Request) -> Estimate | None:
    cap = output_cap_for(request, call.ledger.settings, frozenset())
    return None if cap is None else _estimate(call, cap.on(request, cap.least), 1)


def _estimate(call: Call, request: Request, allowance: int) -> Estimate:
    unbounded_hold = call.ledger.settings.unbounded_hold_nanos
    return pricing.estimate(request, output_allowance=allowance, unbounded_hold=unbounded_hold)


def _usd(estimate: Estimate) -> int:
    return estimate.usd
