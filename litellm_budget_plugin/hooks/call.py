"""One call as LiteLLM makes it: its payer, and the attempts that it turns into. Carried on LiteLLM's Logging object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.admission import admit
from litellm_budget_plugin.hooks.attempt import Attempt
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of
from litellm_budget_plugin.hooks.requests import alike
from litellm_budget_plugin.hooks.thrift import Thrift
from litellm_budget_plugin.manager.ledger import BudgetLedger, new_id

ATTRIBUTE = "_litellm_budget_call"


class Call:
    """A call and its latest attempt. Attempts follow one another: the next one begins when the one before has failed."""

    __slots__ = ("_id", "_lock", "_number", "attempt", "ledger", "process", "refusal", "thrift", "user")

    def __init__(self, ledger: BudgetLedger, user: str, request: pricing.Request, thrift: Thrift | None = None) -> None:
        """Nothing is held before `admit`. `thrift` is what can be done for the first attempt near a limit."""
        self.ledger = ledger
        self.user = user
        self.process = os.getpid()
        self.thrift = thrift
        self.refusal: BudgetError | None = None
        self._id = new_id()
        self._number = 1
        self._lock = threading.Lock()
        self.attempt = Attempt(ledger, user, request, f"{self._id}/1", allowance=self._allowance(request))

    def _allowance(self, request: pricing.Request) -> int:
        return self.ledger.settings.output_allowance if self.thrift is None else self.thrift.allowance(request)

    def admit(self) -> None:
        """Hold the money for the first attempt; raises what `admission.admit` raises."""
        try:
            admit(self.attempt, self.thrift)
        except BaseException:
            self.attempt.release()
            raise

    # LiteLLM copies the arguments of a call, and with them the Logging object: a copy is still the same call.
    def __copy__(self) -> Call:
        return self

    def __deepcopy__(self, memo: Any) -> Call:
        return self

    def sending(self, request: Callable[[], pricing.Request]) -> None:
        """A request is about to leave. The first opens the attempt that the gate held for; each later one is an attempt
        of its own, at its own model's price; and so is the first if LiteLLM, or a hook of somebody else's, has made a dearer
        request of it since. Raises what `admission.admit` raises.
        """
        with self._lock:
            now = request()
            if self.attempt.sent or self.attempt.over or self._dearer(self.attempt, now):
                self.attempt = self._next(self.attempt, now)
            self.attempt.sent = True

    def _dearer(self, attempt: Attempt, now: pricing.Request) -> bool:
        if alike(attempt.request, now):
            return False
        estimate = pricing.estimate(now, output_allowance=self._allowance(now))
        held = attempt.estimate.usd if attempt.estimate is not None else 0
        return estimate.priced and estimate.usd > held

    def _next(self, before: Attempt, request: pricing.Request) -> Attempt:
        # Where nobody has said how it ended, it is charged as lost; and before the next one asks for room.
        before.abandon()
        self._number += 1
        allowance = self._allowance(request)
        attempt = Attempt(self.ledger, self.user, request, f"{self._id}/{self._number}", allowance=allowance)
        admit(attempt)
        return attempt

    def answered(self, response: Any, response_cost: float | None) -> None:
        """The latest attempt was answered."""
        attempt = self.attempt
        if not attempt.over:
            attempt.settle(pricing.cost_of_response(attempt.request, response, response_cost), response)

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

    def dropped(self) -> None:
        """LiteLLM's Logging object is gone, so nobody will say any more how the call ended. Called by a finalizer, which
        must not do anything but append to a queue; and nothing at all in a forked child, which would settle its parent's calls.
        """
        if self.process == os.getpid() and not self.attempt.over:
            self.ledger.settler.later(self._abandon)

    def _abandon(self) -> None:
        self.attempt.abandon()
