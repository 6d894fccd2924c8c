"""The PutBudget, DropBudget and Reset commands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from litellm_budget_plugin.core.accounts import Account, Default, Hold, Ref, command_mark
from litellm_budget_plugin.core.applying import default_of, open_window, roll_due
from litellm_budget_plugin.core.commands import KEEP, Done, DropBudget, PutBudget, Reset, RollNeeded
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.errors import BudgetInputError


def put_budget(work: UnitOfWork, command: PutBudget) -> Done | RollNeeded:
    """Create or change one budget."""
    if _repeated(work, command):
        return Done(command.id)
    current = current_budget(_alike(work, command), command.defaults)
    ref = _target(command, current)
    old = _taken_over(work, command, ref, current)
    account = _opened(work, command, ref)
    if account is None:
        return RollNeeded(work.now, (roll_due(work, ref),))
    if old is not None:
        _take_over(work, account, old)
    if command.only:
        for other in _alike(work, command):
            if other.ref != ref:
                _drop(work, other)
    _apply(account, command)
    work.put(account)
    return _done(work, command)


def _taken_over(work: UnitOfWork, command: PutBudget, ref: Ref, current: Account | None) -> Account | None:
    """The budget that becomes this one: the subject's one budget if it is to have another window, or the follower of a
    default when the first limit of its own is given. Otherwise calls in flight would not be seen by the new limit.
    """
    if current is None or current.ref == ref:
        return None
    if not command.only and (current.pinned or command.limit is KEEP):
        return None
    target = work.account(ref)
    if target is not None and not target.pinned and not target.held and default_of(target, command.defaults) is None:
        work.drop(ref)
        target = None
    return current if target is None else None


def _alike(work: UnitOfWork, command: PutBudget) -> list[Account]:
    rows = work.accounts(command.subject).values()
    return [row for row in rows if row.ref.model == command.model and row.ref.unit == command.unit]


def current_budget(rows: Iterable[Account], defaults: tuple[Default, ...]) -> Account | None:
    """The order in which a subject's budgets for one model and unit count: its own, one that follows a default, any other."""

    def order(row: Account) -> tuple[bool, bool, bool, Ref]:
        return not row.pinned, default_of(row, defaults) is None, row.dropped, row.ref

    return min(rows, key=order, default=None)


def _target(command: PutBudget, current: Account | None) -> Ref:
    window = command.window
    if window is KEEP:
        window = current.ref.window if current is not None else _default_window(command)
    return Ref(*command.subject, command.model, window, command.unit)


def _default_window(command: PutBudget) -> str:
    for default in command.defaults:
        if (default.scope, default.model, default.unit) == (command.subject.scope, command.model, command.unit):
            return default.window
    return "none"


def _opened(work: UnitOfWork, command: PutBudget, ref: Ref) -> Account | None:
    account = work.account(ref)
    if command.bounds is not KEEP:
        start, end = command.bounds
        if account is None:
            return Account(ref, work.new_row_id(f"P:{command.id}"), work.now, start, end)
        account.start, account.end = start, end
        account.dropped = False
        return account
    default = default_of(account, command.defaults) if account is not None else None
    return open_window(work, ref, default, {roll.ref: roll for roll in command.rolls}, f"P:{command.id}")


def _take_over(work: UnitOfWork, account: Account, old: Account) -> None:
    """`account` takes over the spend, the holds and the limit of `old`. No held money is lost."""
    account.id, account.epoch = old.id, old.epoch
    if old.over(work.now):
        account.epoch += 1
    else:
        account.spent, account.models = old.spent, dict(old.models)
        account.alerted, account.alert_limit = old.alerted, old.alert_limit
    account.held = old.held
    account.pinned, account.limit, account.blocked = old.pinned, old.limit, old.blocked
    account.raised_by, account.raised_until, account.carry_over = old.raised_by, old.raised_until, old.carry_over
    account.created_at = old.created_at
    for hold in work.open_holds():
        if old.ref in hold.legs:
            hold.legs = tuple(account.ref if ref == old.ref else ref for ref in hold.legs)
            work.put_hold(hold)
    work.drop(old.ref)


def _apply(account: Account, command: PutBudget) -> None:
    if command.limit is not KEEP:
        account.pinned, account.limit = True, command.limit
    if command.blocked is not KEEP:
        account.blocked = command.blocked
    if command.raised_by is not KEEP:
        account.raised_by = command.raised_by
    if command.raised_until is not KEEP:
        account.raised_until = command.raised_until
    if command.carry_over is not KEEP:
        account.carry_over = command.carry_over
    if command.created_at is not KEEP:
        account.created_at = command.created_at
    if command.spent is not KEEP:
        account.clear()
        for model, amount in command.spent:
            account.charge(amount, model)


def drop_budget(work: UnitOfWork, command: DropBudget) -> Done:
    """Forget budgets; money held on them stays held until its calls end."""
    if _repeated(work, command):
        return Done(command.id)
    for account in _matching(work, command):
        _drop(work, account)
    return _done(work, command)


def _drop(work: UnitOfWork, account: Account) -> None:
    if not account.held:
        work.drop(account.ref)
        return
    account.clear()
    account.pinned = account.blocked = False
    account.limit = None
    account.raised_by = account.raised_until = account.carry_over = account.carried = 0
    account.dropped = True
    work.put(account)


def reset(work: UnitOfWork, command: Reset) -> Done:
    """Set what was spent in the open windows to zero."""
    if _repeated(work, command):
        return Done(command.id)
    for account in _matching(work, command):
        # An ended window already counts as empty, and its rest is still to be carried over.
        if not account.over(work.now):
            account.clear()
            work.put(account)
    return _done(work, command)


def _matching(work: UnitOfWork, command: DropBudget | Reset) -> list[Account]:
    return [
        account
        for account in list(work.accounts(command.subject).values())
        if command.model in (None, account.ref.model) and command.window in (None, account.ref.window)
    ]


def _repeated(work: UnitOfWork, command: PutBudget | DropBudget | Reset) -> bool:
    """Whether this command was applied before. Raises BudgetInputError if its id belongs to another one."""
    mark = work.hold(command_mark(command.id))
    if mark is not None and mark.reply and mark.reply != _digest(command):
        raise BudgetInputError(
            f"the id {command.id!r:.80} was used for another change; give each change an id of its own"
        )
    return mark is not None


def _done(work: UnitOfWork, command: PutBudget | DropBudget | Reset) -> Done:
    work.put_hold(Hold(command_mark(command.id), "done", work.now, reply=_digest(command)))
    work.save()
    return Done(command.id)


def _digest(command: PutBudget | DropBudget | Reset) -> str:
    """What a command says, as a JSON text. The same command comes with other windows, at another time, from a process with
    other defaults.
    """
    said = replace(command, now=None)
    if isinstance(said, PutBudget):
        said = replace(said, rolls=(), defaults=())
    return f'"{hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
