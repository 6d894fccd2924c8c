"""Holding money for an attempt before it starts, or refusing it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from litellm_budget_plugin import pricing
from litellm_budget_plugin.core.commands import (
    Accounts,
    Closed,
    CountExactly,
    Granted,
    Read,
    Refused,
    Reply,
    Reserve,
)
from litellm_budget_plugin.errors import BudgetPriceUnknown, BudgetRefused, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.hooks import tracing
from litellm_budget_plugin.hooks.attempt import Attempt
from litellm_budget_plugin.hooks.exceptions import BudgetExceeded
from litellm_budget_plugin.hooks.thrift import Thrift, floor_of, want_of

_logger = logging.getLogger("litellm_budget_plugin")
_QUIET_SECONDS = 10.0
_warned_at: dict[str, float] = {}


def admit(attempt: Attempt, thrift: Thrift | None = None) -> None:
    """Hold what the attempt may cost at most; where there is no room, as much less as `thrift` can have it cost.

    Raises BudgetExceeded, BudgetPriceUnknown or BudgetStoreUnavailable, as the settings say; then nothing is held. In
    shadow mode it never raises. An attempt whose price is zero holds nothing and does not ask the store.
    """
    if attempt.span is None:
        attempt.span = tracing.span_for(attempt.request.params)
    with attempt.ledger.one_call():
        _hold(attempt, thrift)
    attempt.track()


def _hold(attempt: Attempt, thrift: Thrift | None) -> None:
    ledger = attempt.ledger
    attempt.estimate = estimate = attempt.bound()
    if estimate.priced and estimate.usd == 0:
        _unheld(attempt, "model", "free")
        return
    try:
        if not estimate.priced:
            _check_unpriced(attempt)
            return
        reply = _reserve(attempt, estimate, thrift)
        if isinstance(reply, Granted):
            attempt.held, attempt.granted = True, reply.amounts.usd
            tracing.held(attempt.span, ledger.project, attempt.hold, attempt.granted)
    except BudgetStoreError as error:
        _take_back(attempt)
        _without_store(attempt, error)
        return
    except BudgetRefused:
        raise
    except BaseException:
        _take_back(attempt)
        raise
    if isinstance(reply, Refused):
        _refuse(attempt, BudgetExceeded(reply, attempt.called), reply.account.scope, reply.reason)


def _take_back(attempt: Attempt) -> None:
    """The store may have held the money although nobody knows, or may do so yet: the attempt must not pay for that."""
    if not attempt.held:
        attempt.ledger.release_later(attempt.hold)


def _reserve(attempt: Attempt, estimate: pricing.Estimate, thrift: Thrift | None) -> Reply:
    ledger = attempt.ledger
    command = Reserve(
        hold=attempt.hold,
        project=ledger.project,
        subjects=ledger.subjects(attempt.user),
        models=attempt.models,
        want=want_of(estimate),
        expires_after=ledger.hold_ttl,
        defaults=ledger.defaults,
        floor=floor_of(estimate),
        replaces=attempt.replaces,
        cheap=estimate.loose or thrift is not None,
        # What this process has yet to settle must not refuse its own calls.
        patient=ledger.may_free(),
    )
    reply = ledger.reserve(command)
    if isinstance(reply, CountExactly) and thrift is not None:
        command = replace(command, patient=False)
        reply = thrift.reserve(attempt, command)
    elif isinstance(reply, CountExactly):
        attempt.estimate = exact = attempt.bound(exact=True)
        command = replace(command, want=want_of(exact), cheap=False)
        reply = ledger.reserve(command)
    if isinstance(reply, Refused) and reply.reason == "held" and command.patient:
        ledger.free(command.subjects)
        reply = ledger.reserve(replace(command, patient=False))
    if isinstance(reply, Closed):
        raise BudgetStoreUnavailable(f"the hold {attempt.hold} was closed before it was granted")
    return reply


def _check_unpriced(attempt: Attempt) -> None:
    ledger, model = attempt.ledger, attempt.called
    if ledger.settings.on_unknown_price == "reject" and _limited(attempt):
        error = BudgetPriceUnknown(
            f"no price is known for {model!r}, and {attempt.user!r} has a limit; give a price with litellm.register_model "
            "or input_cost_per_token= and output_cost_per_token=, or set LITELLM_BUDGET_ON_UNKNOWN_PRICE=allow"
        )
        _refuse(attempt, error, "model", "price")
    else:
        _unheld(attempt, "model", "price")


def _limited(attempt: Attempt) -> bool:
    """Whether any limit applies to this attempt's subjects and models."""
    ledger = attempt.ledger
    for subject in ledger.subjects(attempt.user):
        command = Read(ledger.project, subject.scope, subject.id, defaults=ledger.defaults)
        reply = ledger.ask_in_call(command)
        states = reply.accounts if isinstance(reply, Accounts) else ()
        applying = [state for state in states if state.ref.model in ("", *attempt.models)]
        if any(state.limit is not None or state.blocked for state in applying):
            return True
        pinned = any(state.pinned and not state.ref.model for state in applying)
        defaults = [default for default in ledger.defaults if default.scope == subject.scope]
        if not pinned and any(default.limit is not None for default in defaults):
            return True
    return False


def _unheld(attempt: Attempt, scope: str, reason: str) -> None:
    tracing.unheld(attempt.span, attempt.ledger.project, attempt.hold, scope, reason)


def _refuse(attempt: Attempt, error: BudgetRefused, scope: str, reason: str) -> None:
    ledger = attempt.ledger
    if ledger.settings.mode == "shadow":
        ledger.refused(scope, reason)
        _unheld(attempt, scope, reason)
        _logger.warning("shadow mode: this call would be refused: %s", error)
        return
    _tell_refused(attempt, scope, reason)
    raise error


def _tell_refused(attempt: Attempt, scope: str, reason: str) -> None:
    attempt.ledger.refused(scope, reason)
    tracing.refused(attempt.span, attempt.ledger.project, attempt.hold, scope, reason)


def _without_store(attempt: Attempt, error: BudgetStoreError) -> None:
    ledger = attempt.ledger
    if ledger.settings.mode == "enforce":
        if ledger.settings.on_store_error == "reject":
            _tell_refused(attempt, "store", "unavailable")
            if isinstance(error, BudgetStoreUnavailable):
                raise error
            raise BudgetStoreUnavailable(str(error)) from error
        if ledger.settler.delivery.full:
            _tell_refused(attempt, "store", "full")
            raise BudgetStoreUnavailable(
                f"{ledger.settler.delivery.waiting} charges wait for the store, and no more may (JOURNAL_LIMIT): {error}"
            ) from error
    _unheld(attempt, "store", "unavailable")
    now = time.monotonic()
    if now - _warned_at.get(ledger.project, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _warned_at[ledger.project] = now
        _logger.warning("calls go out without a hold, because the store does not answer: %s", error)
