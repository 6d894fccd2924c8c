"""The measures near a limit before a call is refused: it is capped, then moved to a cheaper model, then both.

docs/how-to/cap-calls-near-the-limit.md describes this for users.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Refused, Reserve, ReserveReply
from litellm_budget_plugin.core.money import usd_text
from litellm_budget_plugin.hooks.near_limit.headroom import Headroom, headroom_for
from litellm_budget_plugin.hooks.near_limit.model_fallback import can_move, cheaper_requests
from litellm_budget_plugin.hooks.near_limit.output_cap import OutputCap, output_cap_for
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.pricing import Estimate, Request
from litellm_budget_plugin.pricing.cost_map import price_key
from litellm_budget_plugin.pricing.price_sheet import price_sheet
from litellm_budget_plugin.settings import BudgetSettings

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.call import Call

_TRIES = 8
"""The number of times that a call looks for room again if others overtake it."""

_logger = logging.getLogger("litellm_budget_plugin")


class Chosen(NamedTuple):
    """A request and the most that it may cost. What is held for it covers what is sent."""

    request: Request
    estimate: Estimate
    capped: int | None
    """The output limit that was set, if any."""


class Offer:
    """One way to make the call: with one model, in full or capped."""

    def __init__(self, request: Request, cap: OutputCap | None, settings: BudgetSettings) -> None:
        self.request = request
        self._cap = cap
        self._settings = settings
        full = self._limited(cap.most) if cap is not None else Chosen(request, self._estimate(request), None)
        # A limit that does not restrict the call is not sent.
        self.full = full if cap is not None and cap.open else Chosen(request, full.estimate, None)
        self.least = self.full
        if cap is not None and cap.least < cap.most:
            self.least = self._limited(cap.least)

    def _estimate(self, request: Request) -> Estimate:
        return pricing.estimate(
            request,
            output_allowance=self._settings.output_allowance,
            unbounded_hold=self._settings.unbounded_hold_nanos,
            exact=True,
        )

    def _limited(self, tokens: int) -> Chosen:
        assert self._cap is not None
        request = self._cap.on(self.request, tokens)
        return Chosen(request, self._estimate(request), tokens)

    def within(self, amounts: Amounts) -> Chosen:
        """Return the request with the most output that costs no more than `amounts`, which cover the least."""
        cap, low, high = self._cap, want_of(self.least.estimate), want_of(self.full.estimate)
        if cap is None or all(needed <= given for needed, given in zip(high, amounts)):
            return self.full
        # Before rounding up, the cost is linear in the limit. Between two points it stays below a line that is above it
        # at both.
        more = min(
            (given - needed) * (cap.most - cap.least) // (top - needed)
            for needed, top, given in zip(low, high, amounts)
            if top > needed
        )
        return self._limited(cap.least + min(max(more, 0), cap.most - cap.least))

    def fitting(self, room: Headroom) -> Chosen | None:
        """Return what fits: the whole call, else a capped call that takes half of the room, so that others in flight
        get some too.
        """
        if room.covers(want_of(self.full.estimate)):
            return self.full
        low = want_of(self.least.estimate)
        if not room.covers(low):
            return None
        return self.within(Amounts(*(max(needed, left // 2) for needed, left in zip(low, room.free))))


def want_of(estimate: Estimate) -> Amounts:
    """Return what is held for a call: its money, one call, and its tokens."""
    return Amounts(estimate.usd, 1, estimate.tokens)


def floor_of(estimate: Estimate) -> Amounts:
    """Return what a hold is charged if the end of its call is never reported."""
    return Amounts(estimate.floor, 1, estimate.floor_tokens)


class Plan:
    """The search for a hold that is smaller than the call's worst case. Used once, by the attempt that the gate holds
    for. A retry or fallback is sent with the same changes, or not at all.
    """

    def __init__(self, settings: BudgetSettings, request: Request, fixed: frozenset[str]) -> None:
        self._settings = settings
        self._request = request
        self._fixed = fixed
        self._cap = self._cap_of(request)
        self._movable = can_move(request, settings.fallback_models, fixed)
        self._freed = False
        self._left = ""
        self.changes: dict[str, Any] = {}
        """The arguments to send instead of the caller's."""
        self.note: dict[str, Any] = {}
        """The note that the caller finds in the answer's hidden parameters, under "budget"."""

    @property
    def useful(self) -> bool:
        """Whether something can be done for this call."""
        return self._movable or self._cap is not None

    @property
    def caps(self) -> bool:
        """Whether the call's output can be capped."""
        return self._cap is not None

    def allowance(self, request: Request) -> int:
        """Return the output tokens to hold for an attempt that states no limit: all that its model can write, if that
        is known. So a call far from its limits goes out unchanged and is still covered.
        """
        allowance = self._settings.output_allowance
        return allowance if self._cap is None else max(allowance, price_sheet(price_key(request)).max_output or 0)

    def _cap_of(self, request: Request) -> OutputCap | None:
        return output_cap_for(request, self._settings, self._fixed) if self._settings.cap_output else None

    def reserve(self, call: Call, command: Reserve) -> ReserveReply:
        """Hold for the call in full, capped, or with a cheaper model: the first of these that has room.

        A refusal describes the call as it was made. If the command is `patient`, another try may follow its refusal.
        Raises BudgetStoreError.
        """
        self._freed = False
        with call.ledger.turn():
            return self._first_that_fits(call, command)

    def _first_that_fits(self, call: Call, command: Reserve) -> ReserveReply:
        original = Offer(self._request, self._cap, self._settings)
        lost: Refused | None = None
        for offer in self._offers(original):
            reply = self._try(call, command, offer)
            if reply is not None and not isinstance(reply, Refused):
                return reply
            if reply is not None and reply.reason != "held" and offer is original:
                lost = reply
        # By what was read, nothing fits. The ledger decides, because money of calls that ended long ago may be free by
        # now.
        least = original.least.estimate.usd
        final = lost or self._ask(call, command, original, original.full, least)
        if not isinstance(final, Refused):
            return final
        return replace(final, requested=want_of(original.full.estimate).of(final.account.unit))

    def _offers(self, original: Offer) -> Iterator[Offer]:
        yield original
        if self._movable:
            for request in cheaper_requests(self._request, self._settings.fallback_models):
                yield Offer(request, self._cap_of(request), self._settings)

    def _try(self, call: Call, command: Reserve, offer: Offer) -> ReserveReply | None:
        """Hold for the offer, as far as there is room; return None if there is none."""
        command = replace(command, models=pricing.model_names(offer.request), patient=True)
        reply: ReserveReply | None = None
        for tries_left in reversed(range(_TRIES)):
            chosen = offer.fitting(self._room(call.ledger, command, offer))
            if chosen is None:
                return reply
            # A call that was slower than another one looks again, instead of taking all that is left.
            at_least = (chosen if tries_left else offer.least).estimate.usd
            reply = self._ask(call, command, offer, chosen, min(at_least, chosen.estimate.usd))
            if not isinstance(reply, Refused):
                return reply
            if reply.reason != "held":
                # Such a refusal is recorded under its hold id, so that id cannot be used again.
                call.hold += "+"
        return reply

    def _room(self, ledger: BudgetLedger, command: Reserve, offer: Offer) -> Headroom:
        room = headroom_for(ledger, command)
        if not room.covers(want_of(offer.full.estimate)) and room.held and not self._freed and ledger.can_reclaim():
            # Charges that this process has not yet settled must not cap its own calls.
            self._freed = True
            ledger.reclaim(command.subjects)
            room = headroom_for(ledger, command)
        self._left = self._left or _left(room)
        return room

    def _ask(self, call: Call, command: Reserve, offer: Offer, chosen: Chosen, at_least: int) -> ReserveReply:
        want = want_of(chosen.estimate)
        command = replace(
            command,
            hold=call.hold,
            models=pricing.model_names(offer.request),
            want=want,
            at_least=at_least,
            floor=floor_of(chosen.estimate),
            cheap=False,
        )
        reply = call.ledger.reserve(command)
        if isinstance(reply, Granted):
            self._take(call, offer.within(reply.amounts) if reply.amounts.usd < want.usd else chosen)
        return reply

    def _take(self, call: Call, chosen: Chosen) -> None:
        call.become(chosen.request, chosen.estimate)
        before, after = self._request.params, chosen.request.params
        self.changes = {name: value for name, value in after.items() if value is not before.get(name)}
        if chosen.capped is not None:
            self.note["capped_max_tokens"] = chosen.capped
        if chosen.request.model != self._request.model:
            self.note |= {"moved_from": self._request.model, "moved_to": chosen.request.model}

    def apply(self, params: dict[str, Any], user: str) -> None:
        """Change the arguments that LiteLLM continues with, and log the change."""
        if not self.changes:
            return
        params.update(self.changes)
        moved, capped = self.note.get("moved_to"), self.note.get("capped_max_tokens")
        if not moved and self._cap is not None and capped == self._cap.most:
            _logger.info("a %s call of %r without a limit is given %d output tokens", self._request.model, user, capped)
            return
        what = [f"goes to {moved}"] if moved else []
        what += [f"is capped at {capped} output tokens"] if capped else []
        _logger.warning("a %s call of %r %s: %s", self._request.model, user, " and ".join(what), self._left)


def _left(room: Headroom) -> str:
    if room.tightest is None:
        return "no room is left"
    return f"{room.tightest.scope} {room.tightest.subject!r} has ${usd_text(room.free.usd)} left"


def plan_for(settings: BudgetSettings, request: Request, fixed: frozenset[str]) -> Plan | None:
    """Return the plan for this call near a limit; None if nothing can be done, or nothing is allowed.

    `fixed` are the arguments that were given by position, which cannot be changed. In shadow mode no call is changed.
    """
    if settings.mode != "enforce" or not (settings.cap_output or settings.fallback_models):
        return None
    plan = Plan(settings, request, fixed)
    return plan if plan.useful else None
