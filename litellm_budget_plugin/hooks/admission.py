"""Holding money for an attempt before it starts, or refusing it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.applying import limits_on
from litellm_budget_plugin.core.commands import Closed, CountExactly, Granted, Read, Refused, Reserve, ReserveReply
from litellm_budget_plugin.errors import BudgetPriceUnknown, BudgetRefused, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.hooks import tracing
from litellm_budget_plugin.hooks.exceptions import BudgetExceeded
from litellm_budget_plugin.hooks.near_limit.plan import floor_of, want_of

if TYPE_CHECKING:
    from litellm_budget_plugin.hooks.call import Call

_logger = logging.getLogger("litellm_budget_plugin")
_QUIET_SECONDS = 10.0
_warned_at: dict[str, float] = {}


def admit(call: Call) -> None:
    """Hold what the attempt may cost at most; where there is no room, as much less as the call's plan can have it cost.

    Raises BudgetExceeded, BudgetPriceUnknown or BudgetStoreUnavailable, as the settings say; then nothing is held. In
    shadow mode it never raises. An attempt whose price is zero holds no money, and needs room only under limits of calls and tokens.
    """
    if call.span is None:
        call.span = tracing.span_for(call.request.params)
    with call.ledger.one_call():
        _hold(call)
    call.ledger.track(call.hold, call.abandon, call.granted)


def _hold(call: Call) -> None:
    ledger = call.ledger
    if call.estimate is None:
        call.estimate = call.bound()
    estimate = call.estimate
    free = estimate.priced and estimate.usd == 0
    try:
        if not estimate.priced and not _unpriced_goes_on(call):
            return
        reply = _reserve(call, estimate)
        if isinstance(reply, Granted):
            call.held, call.granted = True, reply.amounts.usd
            if estimate.usd and estimate.priced:
                tracing.held(call.span, ledger.project, call.hold, call.granted)
            else:
                _unheld(call, "model", "free" if free else "price")
    except BudgetStoreError as error:
        _take_back(call)
        if free:
            _unheld(call, "model", "free")
        else:
            _without_store(call, error)
        return
    except BudgetRefused:
        raise
    except BaseException:
        _take_back(call)
        raise
    if isinstance(reply, Refused):
        _refuse(call, BudgetExceeded(reply, call.called), reply.account.scope, reply.reason)


def _take_back(call: Call) -> None:
    """The store may have held the money although nobody knows, or may do so yet: the attempt must not pay for that."""
    if not call.held:
        call.ledger.release_later(call.hold)


def _reserve(call: Call, estimate: pricing.Estimate) -> ReserveReply:
    ledger = call.ledger
    # Only the first attempt is changed; a retry is sent as the call was changed then, or not at all.
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
        # What this process has yet to settle must not refuse its own calls.
        patient=ledger.can_reclaim(),
    )
    reply = ledger.reserve(command)
    if isinstance(reply, CountExactly) and plan is not None:
        command = replace(command, patient=False)
        reply = plan.reserve(call, command)
    elif isinstance(reply, CountExactly):
        call.estimate = exact = call.bound(exact=True)
        command = replace(command, want=want_of(exact), cheap=False)
        reply = ledger.reserve(command)
    if isinstance(reply, Refused) and reply.reason == "held" and command.patient:
        ledger.reclaim(command.subjects)
        reply = ledger.reserve(replace(command, patient=False))
    if isinstance(reply, Closed):
        raise BudgetStoreUnavailable(f"the hold {call.hold} was closed before it was granted")
    return reply


def _unpriced_goes_on(call: Call) -> bool:
    """Whether a call of unknown price may be made, under limits of calls and tokens. Raises BudgetPriceUnknown."""
    ledger, model = call.ledger, call.called
    if ledger.settings.on_unknown_price == "reject" and _limited(call):
        error = BudgetPriceUnknown(
            f"no price is known for {model!r}, and {call.user!r} has a limit; give a price with litellm.register_model "
            "or input_cost_per_token= and output_cost_per_token=, or set LITELLM_BUDGET_ON_UNKNOWN_PRICE=allow"
        )
        _refuse(call, error, "model", "price")
        return False
    return True


def _limited(call: Call) -> bool:
    """Whether any limit applies to this attempt's subjects and models."""
    ledger = call.ledger
    for subject in call.subjects:
        command = Read(ledger.project, subject.scope, subject.id, defaults=call.defaults)
        reply = ledger.ask_in_call(command)
        if any(
            limit is not None and ref.unit == "usd"
            for ref, limit, _ in limits_on(subject, reply.accounts, call.models, call.defaults)
        ):
            return True
    return False


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
                f"{ledger.worker.delivery.waiting} charges wait for the store, and no more may (JOURNAL_LIMIT): {error}"
            ) from error
    _unheld(call, "store", "unavailable")
    now = time.monotonic()
    if now - _warned_at.get(ledger.project, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _warned_at[ledger.project] = now
        _logger.warning("calls go out without a hold, because the store does not answer: %s", error)
