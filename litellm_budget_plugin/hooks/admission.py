"""Hold money for an attempt before it starts, or refuse the attempt."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.applying import limits_on
from litellm_budget_plugin.core.commands import Closed, CountExactly, Granted, Read, Refused, Reserve, ReserveReply
from litellm_budget_plugin.errors import BudgetPriceUnknown, BudgetRefused, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.hooks import tracing
from litellm_budget_plugin.hooks.exceptions import BudgetExceeded, shown
from litellm_budget_plugin.hooks.near_limit.plan import floor_of, want_of
from litellm_budget_plugin.hooks.ways_out import ways_out

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.call import Call

_logger = logging.getLogger("litellm_budget_plugin")
_QUIET_SECONDS = 10.0
_warned_at: dict[str, float] = {}


def admit(call: Call) -> None:
    """Hold the most that the attempt may cost. If there is no room for it, hold the smaller amount that the call's plan
    allows.

    Raises BudgetExceeded, BudgetPriceUnknown or BudgetStoreUnavailable, as the settings say. Then nothing is held. In
    shadow mode it never raises. An attempt whose price is zero holds no money and needs room only under limits of calls
    and tokens.
    """
    _try(call, may_wait=False)


def try_to_hold(call: Call) -> Refused | None:
    """Do what `admit` does, for a call that may wait. Return None if the call may go out. If only held money leaves no
    room, return that refusal: it is neither raised nor recorded.
    """
    return _try(call, may_wait=True)


def _try(call: Call, *, may_wait: bool) -> Refused | None:
    if call.span is None:
        call.span = tracing.span_for(call.request.params)
    with call.ledger.one_call():
        refused = _hold(call, may_wait=may_wait)
    if refused is None:
        call.admitted = True
        call.ledger.track(call.hold, call.abandon, call.granted)
    return refused


def _hold(call: Call, *, may_wait: bool) -> Refused | None:
    if call.estimate is None:
        call.estimate = call.bound()
    estimate = call.estimate
    free = estimate.priced and estimate.usd == 0
    try:
        if not estimate.priced and not _unpriced_goes_on(call):
            return None
        reply = _reserve(call, estimate, may_wait=may_wait)
        if isinstance(reply, Granted):
            _granted(call, reply, estimate)
    except BudgetStoreError as error:
        _take_back(call)
        if free:
            _unheld(call, "model", "free")
        else:
            _without_store(call, error)
        return None
    except BudgetRefused:
        raise
    except BaseException:
        _take_back(call)
        raise
    if isinstance(reply, Refused):
        if may_wait and reply.reason == "held":
            return reply
        call.ledger.refused_by(reply.account, call.defaults)
        refusal = BudgetExceeded(reply, call.called, ways_out(call, reply))
        _refuse(call, refusal, reply.account.scope, reply.reason)
    return None


def _granted(call: Call, reply: Granted, estimate: pricing.Estimate) -> None:
    call.held, call.granted = True, reply.amounts.usd
    if estimate.usd and estimate.priced:
        tracing.held(call.span, call.ledger.project, call.hold, call.granted)
    else:
        _unheld(call, "model", "price" if estimate.usd or not estimate.priced else "free")


def _take_back(call: Call) -> None:
    """Release the hold later: the store may have made it without a confirmation, or may still make it. The attempt must
    not pay.
    """
    if not call.held:
        call.ledger.release_later(call.hold)


def _reserve(call: Call, estimate: pricing.Estimate, *, may_wait: bool) -> ReserveReply:
    ledger = call.ledger
    reclaims = ledger.can_reclaim()
    # Only the first attempt is changed. A retry is sent with the same changes, or not at all.
    plan = call.plan if call.first else None
    command = Reserve(
        hold=call.hold,
        project=ledger.project,
        subjects=call.subjects,
        models=call.models,
        want=want_of(estimate),
        expires_after=ledger.hold_ttl,
        defaults=call.defaults,
        floor=floor_of(estimate),
        replaces=call.replaces,
        cheap=estimate.loose or plan is not None,
        # Charges that this process has not yet settled must not refuse its own calls.
        patient=reclaims or may_wait,
    )
    reply = ledger.reserve(command)
    if isinstance(reply, CountExactly) and plan is not None:
        # A plan reclaims by itself.
        reclaims = False
        reply = plan.reserve(call, replace(command, patient=may_wait))
    elif isinstance(reply, CountExactly):
        call.estimate = exact = call.bound(exact=True)
        command = replace(command, want=want_of(exact), cheap=False)
        reply = ledger.reserve(command)
    if isinstance(reply, Refused) and reply.reason == "held" and reclaims:
        ledger.reclaim(command.subjects)
        reply = ledger.reserve(replace(command, patient=may_wait))
    if isinstance(reply, Closed):
        raise BudgetStoreUnavailable(f"the hold {call.hold} was closed before it was granted")
    return reply


def _unpriced_goes_on(call: Call) -> bool:
    """Whether a call of unknown price may be made, under limits of calls and tokens. Raises BudgetPriceUnknown."""
    if call.ledger.settings.on_unknown_price == "reject" and (limited := _limited(call)) is not None:
        _refuse(call, _price_unknown(call.called, limited), "model", "price")
        return False
    return True


def _price_unknown(model: str, limited: Subject) -> BudgetPriceUnknown:
    who = f"{limited.scope} {shown(limited.id)!r} has a limit"
    if not model.strip():
        return BudgetPriceUnknown(
            f"this call names no model, and {who}; pass model=...", "Name a model: pass model=..."
        )
    near = pricing.nearest_model(model)
    meant = f" (did you mean {near!r}?)" if near else ""
    return BudgetPriceUnknown(
        f"no price is known for {shown(model)!r}{meant}, and {who}; give a price with litellm.register_model "
        "or input_cost_per_token= and output_cost_per_token=, or set LITELLM_BUDGET_ON_UNKNOWN_PRICE=allow",
        f"Use {near!r} if that is the model you mean, else give {shown(model)!r} a price with litellm.register_model."
        if near
        else "Give the model a price with litellm.register_model, or call a model that LiteLLM has a price for.",
    )


def _limited(call: Call) -> Subject | None:
    """Return the first of this attempt's subjects that has a limit in US dollars; None if none has."""
    ledger = call.ledger
    for subject in call.subjects:
        command = Read(ledger.project, subject.scope, subject.id, defaults=call.defaults)
        reply = ledger.ask_in_call(command)
        if any(
            limit is not None and ref.unit == "usd"
            for ref, limit, _ in limits_on(subject, reply.accounts, call.models, call.defaults)
        ):
            return subject
    return None


def _unheld(call: Call, scope: str, reason: str) -> None:
    tracing.unheld(call.span, call.ledger.project, call.hold, scope, reason)


def _refuse(call: Call, error: BudgetRefused, scope: str, reason: str) -> None:
    ledger = call.ledger
    if ledger.settings.mode == "shadow":
        ledger.refused(scope, reason)
        _unheld(call, scope, reason)
        _logger.warning("shadow mode: this call would be refused: %s", error)
        return
    _tell_refused(call, scope, reason)
    ledger.tell_refusal(error)
    raise error


def _tell_refused(call: Call, scope: str, reason: str) -> None:
    call.ledger.refused(scope, reason)
    tracing.refused(call.span, call.ledger.project, call.hold, scope, reason)


def _without_store(call: Call, error: BudgetStoreError) -> None:
    ledger = call.ledger
    if ledger.settings.mode == "enforce":
        if ledger.settings.on_store_error == "reject":
            _tell_refused(call, "store", "unavailable")
            if isinstance(error, BudgetStoreUnavailable):
                raise error
            raise BudgetStoreUnavailable(str(error)) from error
        if ledger.worker.delivery.full:
            _tell_refused(call, "store", "full")
            raise BudgetStoreUnavailable(
                f"{ledger.worker.delivery.waiting} charges are waiting for the store, the most that JOURNAL_LIMIT allows: {error}"
            ) from error
    _unheld(call, "store", "unavailable")
    now = time.monotonic()
    if now - _warned_at.get(ledger.project, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _warned_at[ledger.project] = now
        _logger.warning("calls go out without a hold, because the store does not answer: %s", error)
