"""One call as LiteLLM makes it: its payer, and the attempts that it turns into."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.admission import admit
from litellm_budget_plugin.hooks.attempt import Attempt, bound_of
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of
from litellm_budget_plugin.hooks.requests import alike
from litellm_budget_plugin.hooks.thrift import Thrift
from litellm_budget_plugin.manager.ledger import BudgetLedger, new_id
from litellm_budget_plugin.pricing.usage import field

_GOES_ON = ("queued", "in_progress")


class Call:
    """A call and its latest attempt. Attempts follow one another: the next one begins when the one before has failed.

    `asked` is the request as the application made it. Where a Router has yet to choose a deployment for it, `candidates`
    are the requests that it may become; see `deployments.candidates`. `thrift` is what can be done for the first attempt
    near a limit.
    """

    __slots__ = (
        "_id",
        "_lock",
        "_number",
        "_open",
        "asked",
        "attempt",
        "ledger",
        "process",
        "refusal",
        "thrift",
        "user",
    )

    def __init__(
        self,
        ledger: BudgetLedger,
        user: str,
        request: pricing.Request,
        candidates: tuple[pricing.Request, ...] | None = None,
        thrift: Thrift | None = None,
    ) -> None:
        """Nothing is held before `admit`."""
        self.ledger = ledger
        self.user = user
        self.asked = request
        self._open = candidates is not None
        self.process = os.getpid()
        self.thrift = thrift
        self.refusal: BudgetError | None = None
        self._id = new_id()
        self._number = 1
        self._lock = threading.Lock()
        only = candidates[0] if candidates is not None and len(candidates) == 1 else request
        self.attempt = Attempt(ledger, user, only, f"{self._id}/1", candidates, allowance=self._allowance(request))
        self.attempt.called = request.model

    def _allowance(self, request: pricing.Request) -> int:
        return self.ledger.settings.output_allowance if self.thrift is None else self.thrift.allowance(request)

    def admit(self) -> None:
        """Hold the money for the first attempt; raises what `admission.admit` raises."""
        try:
            admit(self.attempt, self.thrift)
        except BaseException:
            self.attempt.release()
            raise

    def sending(self, request: Callable[[], pricing.Request]) -> None:
        """A request is about to leave. The first opens the attempt that the gate held for; each later one is an attempt
        of its own, at its own model's price. Where the first is now for another model, or a dearer request than the gate
        has seen, its hold is swapped. Raises what `admission.admit` raises.
        """
        with self._lock:
            now, before = request(), self.attempt
            if before.sent and not before.over and before.request.call_type == "realtime":
                # LiteLLM reports every message of a session here.
                return
            if before.sent or before.over:
                # Where nobody has said how it ended, it is charged as lost; and before the next one asks for room.
                before.abandon()
                self.attempt = self._next(now)
            elif self._differs(before, now):
                self.attempt = self._instead(before, now)
            self.attempt.sent = True

    def _differs(self, attempt: Attempt, now: pricing.Request) -> bool:
        if self._open and len(attempt.candidates) != 1:
            return True
        if alike(attempt.request, now):
            return False
        if self._open:
            return True
        estimate = bound_of(self.ledger, now, self._allowance(now))
        held = attempt.estimate.usd if attempt.estimate is not None else 0
        return estimate.priced and estimate.usd > held

    def _next(self, request: pricing.Request, replaces: str | None = None) -> Attempt:
        self._number += 1
        allowance = self._allowance(request)
        attempt = Attempt(self.ledger, self.user, request, f"{self._id}/{self._number}", allowance=allowance)
        attempt.replaces, attempt.span = replaces, self.attempt.span
        if self._open:
            # Clients of the proxy know its groups, not what stands behind them.
            attempt.called = self.asked.model
        admit(attempt)
        return attempt

    def _instead(self, before: Attempt, request: pricing.Request) -> Attempt:
        """Swap the hold in one step: money that this call holds already cannot refuse it."""
        try:
            attempt = self._next(request, before.hold if before.held else None)
        except BaseException:
            before.release()
            raise
        if attempt.held:
            before.replaced()
        else:
            before.release()
        return attempt

    def answered(self, response: Any, response_cost: float | None) -> None:
        """The latest attempt was answered."""
        attempt = self.attempt
        if attempt.over:
            return
        if attempt.request.call_type == "responses" and field(response, "status") in _GOES_ON:
            # `background=True`: the provider works on, and nobody will say here what that costs: what is held is charged.
            cost = pricing.Cost(None, attempt.request.model, 0, 0, estimated=True)
        else:
            cost = pricing.cost_of_response(attempt.request, response, response_cost)
        attempt.settle(cost, response)

    def ended(self) -> None:
        """The stream that answers the latest attempt was read to its end: what came is what it cost."""
        self.attempt.abandon()

    def from_cache(self) -> None:
        """The answer came out of LiteLLM's cache: nothing was spent."""
        self.attempt.release()

    def failed(self, error: BaseException) -> None:
        """The latest attempt failed. An answer or chunks that arrived are charged; an HTTP error costs nothing; a request
        that was lost on its way costs its input side.
        """
        attempt = self.attempt
        if attempt.over:
            return
        outcome = outcome_of(error)
        arrived = attempt.answer is not None and outcome is not Outcome.FREE
        if attempt.chunks or (attempt.sent and (arrived or outcome is Outcome.LOST)):
            attempt.abandon()
        else:
            attempt.release()

    def given_up(self) -> None:
        """Nobody goes on with this call: what was sent and received is charged."""
        self.attempt.abandon()

    def dropped(self, attempt: Attempt | None = None) -> None:
        """Nobody will say any more how the call, or this attempt of it, ended: LiteLLM's Logging object, or the stream, is
        gone. Called by finalizers, which must not do anything but append to a queue; and nothing at all in a forked child,
        which would settle its parent's calls.
        """
        if self.process == os.getpid() and not (attempt or self.attempt).over:
            self.ledger.settler.later(self.given_up if attempt is None else attempt.abandon)
