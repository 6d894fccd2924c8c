"""Holds put on and taken off: the held money of a hold that is granted, settled, released, replaced or expires."""

from __future__ import annotations

from collections.abc import Iterator

from litellm_budget_plugin.core.accounts import (
    CLAIMS,
    UNITS,
    Amounts,
    Charged,
    Hold,
    Subject,
    Usage,
    UsageKey,
)
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.core.windows import DAY

MOST_DUE = 200
"""The most due holds that one command expires: no caller waits for all holds of a dead process."""


def put_on(work: UnitOfWork, hold: Hold) -> None:
    """Stage an open hold and add its money to the held amounts."""
    work.put_hold(hold)
    _hold_on_accounts(work, hold, hold.amounts, 1)


def take_off(work: UnitOfWork, hold: Hold) -> None:
    """Take an open hold's money off the held amounts. The caller stages the hold's new state."""
    _hold_on_accounts(work, hold, hold.amounts, -1)


def _hold_on_accounts(work: UnitOfWork, hold: Hold, amounts: Amounts, sign: int) -> None:
    for ref in hold.legs:
        account = work.account(ref)
        if account is None:
            continue
        account.held += sign * amounts.of(ref.unit)
        if account.dropped and account.held == 0:
            work.drop(account.ref)
        else:
            work.put(account)


def give_back(work: UnitOfWork, hold_id: str) -> None:
    """Release a hold in any state: an expired one gets its floor back, a settled one stays settled, and an unknown one
    is refused when it arrives.
    """
    hold = work.hold(hold_id)
    if hold is not None and hold.state not in ("open", "expired"):
        return
    if hold is not None and hold.state == "open":
        take_off(work, hold)
    elif hold is not None:
        refund_floor(work, hold)
    work.put_hold(Hold(hold_id, "released", work.now))


def draw_from_parent(work: UnitOfWork, parent_id: str, charge: Amounts) -> None:
    """Reduce an open hold's money by a charge, at most to zero."""
    parent = work.hold(parent_id)
    if parent is None or parent.state != "open":
        return
    drawn = charge.at_most(parent.amounts)
    parent.amounts = parent.amounts.minus(drawn)
    work.put_hold(parent)
    _hold_on_accounts(work, parent, drawn, -1)


def expire_due(work: UnitOfWork, most: int | None = MOST_DUE, excluding: str | None = None) -> int:
    """Expire due holds except `excluding`, those with the earliest time limit first. Returns how many."""
    expired = 0
    for hold in work.due(most):
        if hold.id != excluding:
            expire(work, hold)
            expired += 1
    return expired


def expire(work: UnitOfWork, hold: Hold) -> None:
    """Close an open hold that was not settled: it is charged its floor, because the request was probably sent."""
    take_off(work, hold)
    charged = []
    for ref in hold.legs:
        account = work.account(ref)
        if account is not None:
            account.charge(hold.floor.of(ref.unit), hold.model)
            work.put(account)
            charged.append(Charged(Subject(ref.scope, ref.subject), account.id, account.epoch))
    hold.charged = tuple(charged)
    hold.state, hold.at, hold.day = "expired", work.now, work.now // DAY
    work.put_hold(hold)
    usage = Usage(spent=hold.floor.usd, calls=hold.floor.calls, input_tokens=hold.floor.tokens, unsettled=1)
    record_usage(work, hold.subjects, hold.day, hold.model, usage)


def refund_floor(work: UnitOfWork, hold: Hold) -> dict[str, Amounts]:
    """Take back the floor that an expired hold was charged: from the windows that were charged, if they are still open,
    and always from the totals. Returns the amounts that earlier windows keep, by row id.
    """
    kept = {}
    for subject, row_id, epoch in hold.charged:
        for account in work.accounts(subject).values():
            if account.id == row_id and account.epoch == epoch:
                account.charge(-hold.floor.of(account.ref.unit), hold.model)
                work.put(account)
            elif account.id == row_id:
                kept[row_id] = hold.floor
    floor = hold.floor
    for subject in _counted(hold.subjects):
        key = UsageKey(*subject, hold.day, hold.model)
        if work.usage(key).unsettled < 1:
            key = key._replace(day=0)
        work.add_usage(key, Usage(-floor.usd, -floor.calls, -floor.tokens, unsettled=-1))
    return kept


def record_usage(work: UnitOfWork, subjects: tuple[Subject, ...], day: int, model: str, usage: Usage) -> None:
    """Add `usage` to the totals of each subject."""
    for subject in _counted(subjects):
        work.add_usage(UsageKey(subject.scope, subject.id, day, model), usage)


def _counted(subjects: tuple[Subject, ...]) -> Iterator[Subject]:
    """The subjects that have totals. A claim is not a call, and has none."""
    return (subject for subject in subjects if subject.scope != CLAIMS)


def charge_of(cost: int, calls: int, input_tokens: int, output_tokens: int) -> Amounts:
    """A charge in every unit."""
    return Amounts(cost, calls, input_tokens + output_tokens)


assert Amounts._fields == UNITS
