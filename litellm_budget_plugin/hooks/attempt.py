"""One attempt: a request that LiteLLM starts, the money held for it, and its settlement, exactly once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.hooks import tracing
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.marks import response_marks

_logger = logging.getLogger("litellm_budget_plugin")
_unpriced: set[str] = set()


class Attempt:
    """What is known of one attempt while it goes on.

    `sent`: LiteLLM has contacted the provider, or is about to. `chunks` is the stream's own list, so that what was
    received is still known when the stream has been dropped. `answer` is a raw response that arrived. `candidates` are
    what the request may turn into: more than itself where a Router has yet to choose a deployment, nothing where not even
    the candidates are known; then nothing is held until it has. `called` is the model's name as the caller gave it.
    `allowance` is the output, in tokens, that is held for if the request states no limit. `granted` is what is held, in
    nano-dollars. `span` is where traces are told of it.
    """

    __slots__ = (
        "_claim",
        "allowance",
        "answer",
        "called",
        "candidates",
        "chunks",
        "estimate",
        "granted",
        "held",
        "hold",
        "ledger",
        "models",
        "replaces",
        "request",
        "sent",
        "span",
        "user",
    )

    def __init__(
        self,
        ledger: BudgetLedger,
        user: str,
        request: pricing.Request,
        hold: str,
        candidates: tuple[pricing.Request, ...] | None = None,
        *,
        allowance: int,
    ) -> None:
        self.ledger = ledger
        self.allowance = allowance
        self.user = user
        self.request = request
        self.hold = hold
        self.candidates = (request,) if candidates is None else candidates
        self.called = request.model
        self.replaces: str | None = None
        self.models = _names(self.candidates) or (request.model,)
        self.estimate: pricing.Estimate | None = None
        self.held = False
        self.granted = 0
        self.sent = False
        self.span: Any = None
        self.answer: Any = None
        self.chunks: Sequence[Any] | None = None
        self._claim = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether somebody has settled, or is settling, this attempt."""
        return self._claim.locked()

    def bound(self, *, exact: bool = False) -> pricing.Estimate:
        """What the attempt may cost at most: with several candidates, what the dearest one may."""
        return pricing.dearest(
            bound_of(self.ledger, request, self.allowance, exact=exact) for request in self.candidates
        )

    def become(self, request: pricing.Request, estimate: pricing.Estimate) -> None:
        """The attempt is made with another request than it was meant to; before anything is sent."""
        self.request = request
        self.candidates = (request,)
        self.estimate = estimate
        self.models = pricing.model_names(request)

    def track(self) -> None:
        """The attempt goes on: renew its hold, and keep the ledger open until it is over, hold or not."""
        self.ledger.track(self.hold, self.abandon, self.granted)

    def settle(self, cost: pricing.Cost, response: Any = None) -> None:
        """Charge what the attempt cost, unless it is over already."""
        if self._claim.acquire(blocking=False):
            settlement = self._settlement(cost, response)
            self._deliver(settlement)
            tracing.settled(self.span, settlement.cost)

    def _settlement(self, cost: pricing.Cost, response: Any) -> Settle:
        ledger = self.ledger
        return Settle(
            hold=self.hold,
            project=ledger.project,
            subjects=ledger.subjects(self.user),
            models=self.models,
            cost=min(self._usd(cost), MAX_NANOS),
            model=cost.model,
            # A provider can answer any number; no number may keep the charge off the ledger.
            input_tokens=min(max(cost.input_tokens, 0), MAX_NANOS),
            output_tokens=min(max(cost.output_tokens, 0), MAX_NANOS),
            defaults=ledger.defaults,
            aliases=response_marks(self.user, response),
        )

    def _deliver(self, command: Settle | Release) -> None:
        settler = self.ledger.settler
        try:
            self.ledger.deliver(command)
        except BaseException:
            # An interrupt can fall between any two lines; sent again, the command counts once.
            settler.deliver_later(command)
            raise
        finally:
            settler.untrack(self.hold)

    def _usd(self, cost: pricing.Cost) -> int:
        if cost.usd is not None:
            return cost.usd
        if self.estimate is not None and self.estimate.priced:
            _logger.error("the cost of a %s answer is unknown; what was held for it is charged", cost.model)
            return self.estimate.usd
        if cost.model not in _unpriced:
            _unpriced.add(cost.model)
            _logger.warning("no price is known for %s; its calls are recorded and cost nothing", cost.model)
        return 0

    def release(self) -> None:
        """Give the hold back: nothing was spent."""
        if not self._claim.acquire(blocking=False):
            return
        if self.held:
            self._deliver(Release(self.hold, self.ledger.project))
        else:
            self.ledger.settler.untrack(self.hold)
        tracing.settled(self.span, 0)

    def replaced(self) -> None:
        """Another attempt's hold has taken the place of this one's; nothing was sent."""
        if self._claim.acquire(blocking=False):
            self.ledger.settler.untrack(self.hold)

    def abandon(self) -> None:
        """The call was dropped or cancelled, or its outcome is lost: charge what was sent and received, if anything."""
        if self.over:
            return
        chunks = list(self.chunks or ())
        if not self.sent and not chunks:
            self.release()
            return
        try:
            if self.answer is not None:
                cost = pricing.cost_of_raw(self.request, self.answer)
            else:
                cost = pricing.cost_of_chunks(self.request, chunks)
        except Exception:
            _logger.exception("what was received of a %s call cannot be priced", self.request.model)
            cost = pricing.Cost(None, self.request.model, 0, 0, estimated=True)
        self.settle(cost, chunks[0] if chunks else None)


def bound_of(
    ledger: BudgetLedger, request: pricing.Request, allowance: int, *, exact: bool = False
) -> pricing.Estimate:
    """What a request may cost at most, with `allowance` tokens of output if it states no limit."""
    return pricing.estimate(
        request, output_allowance=allowance, unbounded_hold=ledger.settings.unbounded_hold_nanos, exact=exact
    )


def _names(candidates: tuple[pricing.Request, ...]) -> tuple[str, ...]:
    """The model names and families that all candidates share: whichever is chosen, a budget for one of them applies."""
    names = [pricing.model_names(request) for request in candidates]
    return tuple(name for name in names[0] if all(name in others for others in names)) if names else ()
