"""What is done near a limit before a call is refused: it is capped, then moved to a cheaper model, then both.

docs/how-to/cap-calls-near-the-limit.md tells it from the outside.
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
"""How often a call that others overtake looks for room anew."""

_logger = logging.getLogger("litellm_budget_plugin")


class Chosen(NamedTuple):
    """A request and the most that it may cost: what is held for it covers what is sent."""

    request: Request
    estimate: Estimate
    capped: int | None
    """The output limit that was set, if one was."""


class Offer:
    """One way to make the call: with one model, in full or capped."""

    def __init__(self, request: Request, cap: OutputCap | None, settings: BudgetSettings) -> None:
        self.request = request
        self._cap = cap
        self._settings = settings
        full = self._limited(cap.most) if cap is not None else Chosen(request, self._estimate(request), None)
        # A limit that takes nothing away from what the call could do is not sent.
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
        """The most output that costs no more than `amounts`, which cover the least."""
        cap, low, high = self._cap, want_of(self.least.estimate), want_of(self.full.estimate)
        if cap is None or all(needed <= given for needed, given in zip(high, amounts)):
            return self.full
        # Before it is rounded up the cost is linear in the limit: between two points it stays below a line that is above it
        # at both.
        more = min(
            (given - needed) * (cap.most - cap.least) // (top - needed)
            for needed, top, given in zip(low, high, amounts)
            if top > needed
        )
        return self._limited(cap.least + min(max(more, 0), cap.most - cap.least))

    def fitting(self, room: Headroom) -> Chosen | None:
        """What fits: all of it, else a capped call that takes half of the room, so that others in flight get some too."""
        if room.covers(want_of(self.full.estimate)):
            return self.full
        low = want_of(self.least.estimate)
        if not room.covers(low):
            return None
        return self.within(Amounts(*(max(needed, left // 2) for needed, left in zip(low, room.free))))


def want_of(estimate: Estimate) -> Amounts:
    """What is held for a call: its money, itself, and its tokens."""
    return Amounts(estimate.usd, 1, estimate.tokens)


def floor_of(estimate: Estimate) -> Amounts:
    """What a hold is charged if nobody says how its call ended."""
    return Amounts(estimate.floor, 1, estimate.floor_tokens)


class Plan:
    """The way of one call to a hold that is smaller than its own worst case. Used once, by the attempt that the gate holds
    for; a retry or fallback is sent as the call was changed here, or not at all.
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
        """What the caller finds in the answer's hidden parameters, under "budget"."""

    @property
    def useful(self) -> bool:
        """Something can be done for this call."""
        return self._movable or self._cap is not None

    @property
    def caps(self) -> bool:
        """The call's output can be capped."""
        return self._cap is not None

    def allowance(self, request: Request) -> int:
        """Output tokens to hold for an attempt that states no limit: all that its model can write, if that is known. So a
        call far from its limits goes out as it is, and is covered all the same.
        """
        allowance = self._settings.output_allowance
        return allowance if self._cap is None else max(allowance, price_sheet(price_key(request)).max_output or 0)

    def _cap_of(self, request: Request) -> OutputCap | None:
        return output_cap_for(request, self._settings, self._fixed) if self._settings.cap_output else None

    def reserve(self, call: Call, command: Reserve) -> ReserveReply:
        """Hold for the call in full, capped, or with a cheaper model: the first of these that there is room for.

        A refusal is about the call as it was made; a `patient` command's may be followed by another try. Raises BudgetStoreError.
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
        # Nothing fits, by what was read; the ledger decides, for money of calls long over may be free by now.
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
        """Hold for the offer, as far as there is room; None if there is none."""
        command = replace(command, models=pricing.model_names(offer.request), patient=True)
        reply: ReserveReply | None = None
        for tries_left in reversed(range(_TRIES)):
            chosen = offer.fitting(self._room(call.ledger, command, offer))
            if chosen is None:
                return reply
            # Who was slower than another call looks anew, rather than take all that is left.
            at_least = (chosen if tries_left else offer.least).estimate.usd
            reply = self._ask(call, command, offer, chosen, min(at_least, chosen.estimate.usd))
            if not isinstance(reply, Refused):
                return reply
            if reply.reason != "held":
                # Such a refusal is recorded under its hold, which is of no more use.
                call.hold += "+"
        return reply

    def _room(self, ledger: BudgetLedger, command: Reserve, offer: Offer) -> Headroom:
        room = headroom_for(ledger, command)
        if not room.covers(want_of(offer.full.estimate)) and room.held and not self._freed and ledger.can_reclaim():
            # What this process has yet to settle must not cap its own calls.
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
        """Change the arguments that LiteLLM goes on with, and say so in the log."""
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
    """What can be done for this call near a limit; None where nothing can, or nothing may.

    `fixed` are the arguments that were given by position, which nobody can change. In shadow mode no call is changed.
    """
    if settings.mode != "enforce" or not (settings.cap_output or settings.fallback_models):
        return None
    plan = Plan(settings, request, fixed)
    return plan if plan.useful else None
