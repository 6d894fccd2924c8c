"""One attempt of a call: who pays, the money held for it, and its one ending."""

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
    """An attempt, from before it is admitted until it is settled or released, which happens once.

    `asked` is the request as the application made it, `request` what it has become. Where a Router has yet to choose a
    deployment, `candidates` are the requests that it may become, see `deployments.candidates`; none where not even they are
    known: then nothing is held until it has chosen. `plan` is what can be done for the first attempt near a limit.
    `sent`: LiteLLM has contacted the provider, or is about to. `chunks` is the stream's own list, so that what was received
    is still known when the stream has been dropped. `answer` is a raw response that arrived. `held`: the ledger holds
    `granted` nano-dollars under the id `hold`. `hidden_usage` is the caller's own `stream_options` where the provider was asked for
    the usage of a stream and the caller was not to see it. `waiter` is the place in the line of a call that is yet to wait, with nothing
    held; `admitted`: the call may go out. `span` is where traces are told of it.
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
        """Nothing is held before `admit`. `after` is the attempt that this one follows."""
        self.ledger = ledger
        self.principal = principal
        self.plan = plan
        self.asked: pricing.Request = request if after is None else after.asked
        self.to_be_routed: bool = candidates is not None if after is None else after.to_be_routed
        self.candidates = (request,) if candidates is None else candidates
        self.request = self.candidates[0] if len(self.candidates) == 1 else request
        self.models = _shared_names(self.candidates) or (request.model,)
        # Clients of the proxy know its groups, not what stands behind them.
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
        """Whether somebody has settled, or is settling, this attempt."""
        return self._claim.locked()

    @property
    def first(self) -> bool:
        """Whether this is the attempt that the gate holds for."""
        return self._number == 1

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Whose budgets count."""
        return self.principal.subjects

    @property
    def defaults(self) -> tuple[Default, ...]:
        """The limits that count where none is set by hand."""
        return self.principal.defaults

    @property
    def user(self) -> str:
        """The id of the user who pays."""
        return self.subjects[0].id

    def bound(self, *, exact: bool = False) -> pricing.Estimate:
        """What the attempt may cost at most: with several candidates, what the dearest one may."""
        return pricing.dearest(self._estimate(request, exact=exact) for request in self.candidates)

    def _estimate(self, request: pricing.Request, *, exact: bool = False) -> pricing.Estimate:
        unbounded_hold = self.ledger.settings.unbounded_hold_nanos
        return pricing.estimate(request, output_allowance=self.allowance, unbounded_hold=unbounded_hold, exact=exact)

    def become(self, request: pricing.Request, estimate: pricing.Estimate) -> None:
        """The attempt is made with another request than it was meant to; before anything is sent."""
        self.request = request
        self.candidates = (request,)
        self.estimate = estimate
        self.models = pricing.model_names(request)

    def admit(self, place: Place = Place.NOWHERE) -> None:
        """Hold the money for this attempt, waiting at `place` if need be, see `waiting`; raises what `admission.admit` raises."""
        try:
            hold_or_wait(self, place)
        except BaseException:
            self.release()
            raise

    # Before a request leaves.

    def sending(self, details: Mapping[str, Any], body: object) -> Call:
        """A request is about to leave: `body` is what LiteLLM sends, `details` what its Logging object knows. Returns the
        attempt that the request belongs to. The first request opens the attempt that the gate held for; each later one is
        an attempt of its own, at its own model's price. Where the first is now for another model, or the body asks for
        more than was held for, the hold is swapped. Raises what `admission.admit` raises.
        """
        several = self.request.call_type not in FAMILIES or self.request.call_type == "realtime"
        if self.sent and not self.over and several:
            # A session, or a function that makes several requests: they are one attempt.
            return self._covering(details, body)
        call = self
        self._admit_unless_waited()
        if self.sent or self.over:
            # Where nobody has said how it ended, it is charged as lost; and before the next one asks for room.
            self.abandon()
            call = self._next(self._now(details))
        elif (self.to_be_routed and len(self.candidates) != 1) or not self._is_for(details):
            call = self._instead(self._now(details))
        call = call._covering(details, body)
        call.sent = True
        return call

    def _admit_unless_waited(self) -> None:
        """Hold, or refuse, where LiteLLM has come past the place at which a deferred call was to wait."""
        if self.waiter is not None:
            self._leave_line()
            self.admit()

    def _is_for(self, details: Mapping[str, Any]) -> bool:
        """Whether what LiteLLM calls is this attempt's model; LiteLLM cuts the provider off the name."""
        model = str(details.get("model") or (self.asked if self.to_be_routed else self.request).model)
        return self.request.model == model or self.request.model.endswith(f"/{model}") or not model

    def _now(self, details: Mapping[str, Any]) -> pricing.Request:
        """The request that is about to leave."""
        # Before the Router has chosen, the request is the application's; afterwards it can have been changed near a limit.
        return chosen(later_request(self.asked if self.to_be_routed else self.request, details), details)

    def sent_again(self) -> Call:
        """The provider's SDK repeats the request by itself: the attempt that the repetition is. Raises what
        `admission.admit` raises.
        """
        self.abandon()
        call = self._next(self.request, estimate=self.estimate)
        call.sent = True
        return call

    def _covering(self, details: Mapping[str, Any], body: object) -> Call:
        """The attempt whose hold covers the body: this one, or another in its place."""
        if not body or self.estimate is None or self.request.call_type == "realtime":
            return self
        request, estimate = self.request, self.estimate
        if request.call_type not in FAMILIES:
            if not details.get("model") or not _has_content(body):
                return self
            request = sent_request(details)
            estimate = self._estimate(request)
            if estimate.priced:
                # From here on it is priced as what it is.
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
        """Swap the hold in one step: money that this call holds already cannot refuse it."""
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

    # How it ends. What ends it first counts; everything later changes nothing.

    def answered(self, response: Any, response_cost: float | None, logging_obj: Any = None) -> None:
        """The attempt was answered; `response_cost` is LiteLLM's figure for it."""
        if self.over:
            return
        if self.request.call_type in STARTS_JOB and not response_cost:
            started(self.principal, field(response, "id"))
            self.release()
        elif self.request.call_type == "responses" and field(response, "status") in _GOES_ON:
            # `background=True`: the provider works on, and nobody will say here what that costs: what is held is charged.
            self._settle(pricing.Cost(None, self.request.model, 0, 0, estimated=True), response)
        else:
            cost = pricing.cost_of_response(self.request, response, response_cost, logging_obj=logging_obj)
            if cost.usd is None and self.request.call_type not in FAMILIES:
                # One of several requests, such as the search before an answer: the next one may have a price. If none has,
                # the end of the call charges what is held.
                return
            self._settle(cost, response)

    def failed(self, error: BaseException) -> None:
        """The attempt failed. An answer or chunks that arrived are charged; an HTTP error costs nothing; a request that was
        lost on its way, or of whose end nothing is known, costs its input side.
        """
        if self.over:
            return
        if self.chunks or (self.sent and outcome_of(error) is not Outcome.FREE):
            self.abandon()
        else:
            self.release()

    def abandon(self) -> None:
        """The call was dropped or cancelled, its stream was read to its end, or its outcome is lost: charge what was sent
        and received, if anything.
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
        """Nobody will say any more how the attempt ended: LiteLLM's Logging object, or the stream, is gone. Called by
        finalizers, which must not do anything but append to a queue; and nothing at all in a forked child, which would
        settle its parent's calls.
        """
        if not self.over and self._process == os.getpid():
            self.ledger.worker.submit(self.abandon)

    def _leave_line(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.ledger.waiting_line.leave(waiter)

    def release(self) -> None:
        """Give the hold back: nothing was spent."""
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
        # Not before: what is interrupted up to here can still be settled by what ends the call next.
        if self._claim.acquire(blocking=False):
            self._deliver(command)
            tracing.settled(self.span, nanos)

    def _deliver(self, command: Settle | Release) -> None:
        worker = self.ledger.worker
        try:
            self.ledger.deliver(command)
        except BaseException:
            # An interrupt can fall between any two lines; sent again, the command counts once.
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
    """The command that charges `nanos` for `cost`. With `unless`, nothing if a mark of that name is there."""
    guessed = nanos > 0 and (cost.estimated or cost.usd is None)
    estimated = (Subject(ESTIMATED, ledger.project),) if guessed else ()
    return Settle(
        hold=hold,
        project=ledger.project,
        subjects=(*principal.subjects, *estimated),
        models=models,
        cost=nanos,
        model=cost.model,
        # A provider can answer any number; no number may keep the charge off the ledger.
        input_tokens=min(max(cost.input_tokens, 0), MAX_NANOS),
        output_tokens=min(max(cost.output_tokens, 0), MAX_NANOS),
        defaults=ledger.defaults_now(principal),
        aliases=marks,
        unless=unless,
    )


def _has_content(body: object) -> bool:
    return isinstance(body, Mapping) and any(body.get(name) for name in _CONTENT)


def _shared_names(candidates: tuple[pricing.Request, ...]) -> tuple[str, ...]:
    """The model names and families that all candidates share: whichever is chosen, a budget for one of them applies."""
    if len(candidates) == 1:
        return pricing.model_names(candidates[0])
    names = [pricing.model_names(request) for request in candidates]
    return tuple(name for name in names[0] if all(name in others for others in names)) if names else ()
