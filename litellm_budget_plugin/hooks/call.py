"""One attempt of a call: the payer, the money held for it, and how it ends, which happens once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.accounts import ESTIMATED, Default, Subject
from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.hooks import tracing
from litellm_budget_plugin.hooks.call_types import FAMILIES, STARTS_JOB, later_request, sent_request
from litellm_budget_plugin.hooks.deployments import chosen
from litellm_budget_plugin.hooks.failure import Outcome, outcome_of
from litellm_budget_plugin.hooks.jobs import started
from litellm_budget_plugin.hooks.near_limit.plan import Plan
from litellm_budget_plugin.hooks.waiting import Place, hold_or_wait
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.marks import response_marks
from litellm_budget_plugin.manager.principal import Principal
from litellm_budget_plugin.manager.waiting_line import Waiter
from litellm_budget_plugin.pricing.usage import field

_logger = logging.getLogger("litellm_budget_plugin")
_GOES_ON = ("queued", "in_progress")
_CONTENT = ("messages", "contents", "prompt", "input", "inputs")
_warned: set[str] = set()


class Call:
    """One attempt, from before its admission until it is settled or released. It is settled or released once.

    `asked` is the request as the application made it, `request` is the request after all changes. If a Router has not
    yet chosen a deployment, `candidates` are the requests that it may become, see `deployments.candidates`. It is empty
    if these are unknown too: then nothing is held until the Router has chosen. `plan` is what can be done for the first
    attempt near a limit. `sent`: LiteLLM has contacted the provider or is about to. `chunks` is the stream's own list,
    so that received chunks are still known after the stream has been dropped. `answer` is a raw response that arrived.
    `held`: the ledger holds `granted` nano-dollars under the id `hold`. `hidden_usage` is the caller's own
    `stream_options` if the provider was asked for a stream's usage that the caller must not see. `waiter` is the place
    in the waiting line of a call that will wait and holds nothing yet. `admitted`: the call may go out. `span` is the
    trace span to write to.
    """

    __slots__ = (
        "_claim",
        "_id",
        "_number",
        "_process",
        "admitted",
        "allowance",
        "answer",
        "asked",
        "called",
        "candidates",
        "chunks",
        "estimate",
        "granted",
        "held",
        "hidden_usage",
        "hold",
        "ledger",
        "models",
        "plan",
        "principal",
        "replaces",
        "request",
        "sent",
        "span",
        "to_be_routed",
        "waiter",
    )

    def __init__(
        self,
        ledger: BudgetLedger,
        principal: Principal,
        request: pricing.Request,
        candidates: tuple[pricing.Request, ...] | None = None,
        plan: Plan | None = None,
        after: Call | None = None,
    ) -> None:
        """Hold nothing: `admit` does that. `after` is the attempt before this one."""
        self.ledger = ledger
        self.principal = principal
        self.plan = plan
        self.asked: pricing.Request = request if after is None else after.asked
        self.to_be_routed: bool = candidates is not None if after is None else after.to_be_routed
        self.candidates = (request,) if candidates is None else candidates
        self.request = self.candidates[0] if len(self.candidates) == 1 else request
        self.models = _shared_names(self.candidates) or (request.model,)
        # Clients of the proxy know its model groups, not the deployments behind them.
        self.called = self.asked.model if after is None or self.to_be_routed else request.model
        self.allowance = ledger.settings.output_allowance if plan is None else plan.allowance(request)
        self._id: str = new_id() if after is None else after._id
        self._number: int = 1 if after is None else after._number + 1
        self.hold = f"{self._id}/{self._number}"
        self.replaces: str | None = None
        self.span: Any = None if after is None else after.span
        self.estimate: pricing.Estimate | None = None
        self.waiter: Waiter | None = None
        self.admitted = False
        self.held = False
        self.granted = 0
        self.sent = False
        self.hidden_usage: tuple[Any] | None = None if after is None else after.hidden_usage
        self.answer: Any = None
        self.chunks: Sequence[Any] | None = None
        self._process = os.getpid()
        self._claim = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether this attempt has been settled or released, or is being settled."""
        return self._claim.locked()

    @property
    def first(self) -> bool:
        """Whether this is the attempt that the gate holds money for."""
        return self._number == 1

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The subjects whose budgets count."""
        return self.principal.subjects

    @property
    def defaults(self) -> tuple[Default, ...]:
        """The limits that apply where no limit was set by hand."""
        return self.principal.defaults

    @property
    def user(self) -> str:
        """The id of the user who pays."""
        return self.subjects[0].id

    def bound(self, *, exact: bool = False) -> pricing.Estimate:
        """Return the most that the attempt may cost. With several candidates, the most expensive one counts."""
        return pricing.dearest(self._estimate(request, exact=exact) for request in self.candidates)

    def _estimate(self, request: pricing.Request, *, exact: bool = False) -> pricing.Estimate:
        unbounded_hold = self.ledger.settings.unbounded_hold_nanos
        return pricing.estimate(request, output_allowance=self.allowance, unbounded_hold=unbounded_hold, exact=exact)

    def become(self, request: pricing.Request, estimate: pricing.Estimate) -> None:
        """Replace the attempt's request, before anything is sent."""
        self.request = request
        self.candidates = (request,)
        self.estimate = estimate
        self.models = pricing.model_names(request)

    def admit(self, place: Place = Place.NOWHERE) -> None:
        """Hold the money for this attempt. Wait at `place` if necessary, see `waiting`. Raises what `admission.admit`
        raises.
        """
        try:
            hold_or_wait(self, place)
        except BaseException:
            self.release()
            raise

    # Before a request leaves.

    def sending(self, details: Mapping[str, Any], body: object) -> Call:
        """Return the attempt that a request belongs to that is about to leave. `body` is what LiteLLM sends, `details`
        is what its Logging object knows. The first request opens the attempt that the gate held for. Each later one is
        an attempt of its own, at the price of its own model. If the first request is now for another model, or its body
        asks for more than was held, the hold is swapped. Raises what `admission.admit` raises.
        """
        several = self.request.call_type not in FAMILIES or self.request.call_type == "realtime"
        if self.sent and not self.over and several:
            # A session, or a function that makes several requests, is one attempt.
            return self._covering(details, body)
        call = self
        self._admit_unless_waited()
        if self.sent or self.over:
            # If the end of the last attempt is unknown, charge it as lost before the next one asks for room.
            self.abandon()
            call = self._next(self._now(details))
        elif (self.to_be_routed and len(self.candidates) != 1) or not self._is_for(details):
            call = self._instead(self._now(details))
        call = call._covering(details, body)
        call.sent = True
        return call

    def _admit_unless_waited(self) -> None:
        """Hold or refuse a deferred call if LiteLLM has passed the place where it was to wait."""
        if self.waiter is not None:
            self._leave_line()
            self.admit()

    def _is_for(self, details: Mapping[str, Any]) -> bool:
        """Whether LiteLLM calls this attempt's model. LiteLLM removes the provider from the name."""
        model = str(details.get("model") or (self.asked if self.to_be_routed else self.request).model)
        return self.request.model == model or self.request.model.endswith(f"/{model}") or not model

    def _now(self, details: Mapping[str, Any]) -> pricing.Request:
        """Return the request that is about to leave."""
        # Before the Router has chosen, this is the application's request. Afterwards it may have been changed near a
        # limit.
        return chosen(later_request(self.asked if self.to_be_routed else self.request, details), details)

    def sent_again(self) -> Call:
        """Return the attempt for a request that the provider's SDK repeats by itself. Raises what `admission.admit`
        raises.
        """
        self.abandon()
        call = self._next(self.request, estimate=self.estimate)
        call.sent = True
        return call

    def _covering(self, details: Mapping[str, Any], body: object) -> Call:
        """Return the attempt whose hold covers the body: this one, or another one that replaces it."""
        if not body or self.estimate is None or self.request.call_type == "realtime":
            return self
        request, estimate = self.request, self.estimate
        if request.call_type not in FAMILIES:
            if not details.get("model") or not _has_content(body):
                return self
            request = sent_request(details)
            estimate = self._estimate(request)
            if estimate.priced:
                # From here on it has the price of its own model.
                self.request = request
        estimate = pricing.estimate_sent(
            request,
            body,
            estimate,
            output_allowance=self.allowance,
            unbounded_hold=self.ledger.settings.unbounded_hold_nanos,
        )
        if not estimate.priced or estimate.usd <= self.estimate.usd:
            return self
        return self._instead(request, estimate)

    def _next(
        self, request: pricing.Request, replaces: str | None = None, estimate: pricing.Estimate | None = None
    ) -> Call:
        call = Call(self.ledger, self.principal, request, plan=self.plan, after=self)
        call.replaces, call.estimate = replaces, estimate
        call.admit()
        return call

    def _instead(self, request: pricing.Request, estimate: pricing.Estimate | None = None) -> Call:
        """Swap the hold in one step, so that the money that this call already holds cannot refuse it."""
        try:
            call = self._next(request, self.hold if self.held else None, estimate)
        except BaseException:
            self.release()
            raise
        call.sent, call.chunks = self.sent, self.chunks
        if not call.held:
            self.release()
        elif self._claim.acquire(blocking=False):
            self.ledger.worker.untrack(self.hold)
        return call

    # How an attempt ends. The first end counts, later ones change nothing.

    def answered(self, response: Any, response_cost: float | None, logging_obj: Any = None) -> None:
        """Record that the attempt was answered. `response_cost` is the cost that LiteLLM reports."""
        if self.over:
            return
        if self.request.call_type in STARTS_JOB and not response_cost:
            started(self.principal, field(response, "id"))
            self.release()
        elif self.request.call_type == "responses" and field(response, "status") in _GOES_ON:
            # `background=True`: the provider works on, and its cost is never reported here. So the held amount is
            # charged.
            self._settle(pricing.Cost(None, self.request.model, 0, 0, estimated=True), response)
        else:
            cost = pricing.cost_of_response(self.request, response, response_cost, logging_obj=logging_obj)
            if cost.usd is None and self.request.call_type not in FAMILIES:
                # One of several requests, such as the search before an answer: the next one may have a price. If none
                # has, the end of the call charges the held amount.
                return
            self._settle(cost, response)

    def failed(self, error: BaseException) -> None:
        """Record that the attempt failed. An answer or chunks that arrived are charged. An HTTP error costs nothing. A
        request that was lost, or whose end is unknown, costs its input side.
        """
        if self.over:
            return
        if self.chunks or (self.sent and outcome_of(error) is not Outcome.FREE):
            self.abandon()
        else:
            self.release()

    def abandon(self) -> None:
        """Charge what was sent and received, if anything: the call was dropped or cancelled, its stream was read to its
        end, or its outcome is lost.
        """
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
            _logger.exception("the received part of a %s answer cannot be priced", self.request.model)
            cost = pricing.Cost(None, self.request.model, 0, 0, estimated=True)
        self._settle(cost, chunks[0] if chunks else None)

    def dropped(self) -> None:
        """Have the attempt abandoned: LiteLLM's Logging object, or the stream, is gone, so its end will not be
        reported. Finalizers call this, and they may only append to a queue. In a forked child it does nothing, because
        the child would settle its parent's calls.
        """
        if not self.over and self._process == os.getpid():
            self.ledger.worker.submit(self.abandon)

    def _leave_line(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.ledger.waiting_line.leave(waiter)

    def release(self) -> None:
        """Release the hold: nothing was spent."""
        self._leave_line()
        if not self._claim.acquire(blocking=False):
            return
        if self.held:
            self._deliver(Release(self.hold, self.ledger.project))
        else:
            self.ledger.worker.untrack(self.hold)
        tracing.settled(self.span, 0)

    def _settle(self, cost: pricing.Cost, response: Any) -> None:
        if self.over:
            return
        nanos = min(self._nanos(cost), MAX_NANOS)
        marks = response_marks(self.user, response)
        command = settlement_of(self.ledger, self.principal, self.models, cost, nanos, self.hold, marks)
        # Claim it only here: if an interrupt comes earlier, the next end of the call can still settle it.
        if self._claim.acquire(blocking=False):
            self._deliver(command)
            tracing.settled(self.span, nanos)

    def _deliver(self, command: Settle | Release) -> None:
        worker = self.ledger.worker
        try:
            self.ledger.deliver(command)
        except BaseException:
            # An interrupt can come between any two lines. A command that is sent twice counts once.
            worker.deliver_later(command)
            raise
        finally:
            worker.untrack(self.hold)
            self.ledger.waiting_line.freed(self.subjects)

    def _nanos(self, cost: pricing.Cost) -> int:
        if cost.usd is not None:
            return cost.usd
        name, known = cost.model or self.request.call_type, self.request.call_type in FAMILIES
        if self.estimate is not None and self.estimate.priced:
            if known or name not in _warned:
                level = logging.ERROR if known else logging.WARNING
                _logger.log(level, "the cost of a %s answer is unknown; what was held for it is charged", name)
            _warned.add(name)
            return self.estimate.usd
        if name not in _warned:
            _warned.add(name)
            _logger.warning("no price is known for %s; its calls are recorded and cost nothing", name)
        return 0


def settlement_of(
    ledger: BudgetLedger,
    principal: Principal,
    models: tuple[str, ...],
    cost: pricing.Cost,
    nanos: int,
    hold: str,
    marks: tuple[str, ...],
    *,
    unless: str | None = None,
) -> Settle:
    """Return the command that charges `nanos` for `cost`. With `unless`, it charges nothing if a mark of that name
    exists.
    """
    guessed = nanos > 0 and (cost.estimated or cost.usd is None)
    estimated = (Subject(ESTIMATED, ledger.project),) if guessed else ()
    return Settle(
        hold=hold,
        project=ledger.project,
        subjects=(*principal.subjects, *estimated),
        models=models,
        cost=nanos,
        model=cost.model,
        # A provider can report any number. No number may keep the charge out of the ledger.
        input_tokens=min(max(cost.input_tokens, 0), MAX_NANOS),
        output_tokens=min(max(cost.output_tokens, 0), MAX_NANOS),
        defaults=ledger.defaults_now(principal),
        aliases=marks,
        unless=unless,
    )


def _has_content(body: object) -> bool:
    return isinstance(body, Mapping) and any(body.get(name) for name in _CONTENT)


def _shared_names(candidates: tuple[pricing.Request, ...]) -> tuple[str, ...]:
    """Return the model names and families that all candidates share: their budgets apply whichever candidate is chosen."""
    if len(candidates) == 1:
        return pricing.model_names(candidates[0])
    names = [pricing.model_names(request) for request in candidates]
    return tuple(name for name in names[0] if all(name in others for others in names)) if names else ()
