"""The Settle, Release and Renew commands."""

from __future__ import annotations

from typing import TypeVar

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Account, Amounts, Hold, Usage, alias_mark
from litellm_budget_plugin.core.applying import applying_accounts
from litellm_budget_plugin.core.commands import (
    AlreadyCharged,
    Release,
    Released,
    Renew,
    Renewed,
    RollNeeded,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.holding import (
    charge_of,
    draw_from_parent,
    expire_due,
    give_back,
    record_usage,
    refund_floor,
    take_off,
)
from litellm_budget_plugin.core.names import clean_label
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.core.windows import DAY

_Settling = TypeVar("_Settling", Settled, AlreadyCharged)


def settle(work: UnitOfWork, command: Settle) -> Settled | AlreadyCharged | RollNeeded:
    """Charge an attempt once and take its hold off."""
    hold = work.hold(command.hold)
    if hold is not None and hold.state == "settled":
        return _repeated(hold)
    if command.unless and work.hold(alias_mark(command.unless)) is not None:
        give_back(work, command.hold)
        return _done(work, command, AlreadyCharged(command.hold))
    applying, due = applying_accounts(work, command, hold.legs if hold is not None else ())
    if due:
        return RollNeeded(work.now, tuple(due))
    _charge(work, command, hold, [account for account, _ in applying])
    for alias in command.aliases:
        work.put_hold(Hold(alias_mark(alias), "alias", work.now))
    return _done(work, command, Settled(command.hold))


def _repeated(hold: Hold) -> Settled | AlreadyCharged:
    reply = wire.loads(hold.reply) if hold.reply else Settled(hold.id)
    return reply if isinstance(reply, (Settled, AlreadyCharged)) else Settled(hold.id)


def _done(work: UnitOfWork, command: Settle, reply: _Settling) -> _Settling:
    said = "" if isinstance(reply, Settled) else wire.dumps(reply)
    work.put_hold(Hold(command.hold, "settled", work.now, reply=said))
    work.save()
    return reply


def _charge(work: UnitOfWork, command: Settle, hold: Hold | None, applying: list[Account]) -> None:
    charge = charge_of(command.cost, command.calls, command.input_tokens, command.output_tokens)
    paid: dict[str, Amounts] = {}
    if hold is not None and hold.state == "open":
        take_off(work, hold)
    elif hold is not None and hold.state == "expired":
        paid = refund_floor(work, hold)
    elif hold is None and command.parent:
        draw_from_parent(work, command.parent, charge)
    model = clean_label(command.model)
    for account in applying:
        # An earlier window keeps the floor that it was charged for this attempt's expired hold.
        rest = charge.minus(charge.at_most(paid[account.id])) if account.id in paid else charge
        account.charge(rest.of(account.ref.unit), model)
        work.put(account)
    day = min(work.now if command.at is None else command.at, work.now) // DAY
    usage = Usage(command.cost, command.calls, command.input_tokens, command.output_tokens)
    record_usage(work, tuple(dict.fromkeys(command.subjects)), day, model, usage)


def release(work: UnitOfWork, command: Release) -> Released:
    """Give a hold back; an expired one gets its floor back."""
    give_back(work, command.hold)
    work.save()
    return Released(command.hold)


def renew(work: UnitOfWork, command: Renew) -> Renewed:
    """Move the time limit of open holds."""
    missing = []
    for hold_id in command.holds:
        hold = work.hold(hold_id)
        if hold is None or hold.state != "open":
            missing.append(hold_id)
        elif hold.at < work.now + command.expires_after:
            hold.at = work.now + command.expires_after
            work.put_hold(hold)
    expire_due(work)
    work.save()
    return Renewed(tuple(missing))
