"""The commands that change budgets and balances."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.accounts import Account, Default, Hold, Ref, Subject, command_mark, top_up_mark
from litellm_budget_plugin.core.applying import default_of, defaults_for, open_window, roll_due, whole_mark
from litellm_budget_plugin.core.commands import (
    KEEP,
    Done,
    DropBudget,
    PutBudget,
    Refund,
    Reset,
    RollNeeded,
    SetLimits,
    TopUp,
)
from litellm_budget_plugin.core.models import covers_any
from litellm_budget_plugin.core.money import MAX_NANOS, usd_text
from litellm_budget_plugin.core.reading import states_of
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.core.windows import CREDIT, parse_window
from litellm_budget_plugin.errors import BudgetInputError

KEPT_FOR_EVER = 2**52
"""The time of closing given to marks of top-ups, so that no sweep forgets them: a payment must not be taken twice in any year."""


def put_budget(work: UnitOfWork, command: PutBudget) -> Done | RollNeeded:
    """Create or change one budget."""
    if _repeated(work, command):
        return Done(command.id)
    current = current_budget(_alike(work, command), command.defaults)
    ref = _target(work, command, current)
    old = _taken_over(work, command, ref, current)
    account = _opened(work, command, ref)
    if account is None:
        return RollNeeded(work.now, (roll_due(work, ref),))
    if old is not None:
        _take_over(work, account, old)
    if command.only:
        for other in _alike(work, command):
            if other.ref != ref:
                account.blocked = account.blocked or other.blocked
                _drop(work, other)
    _apply(account, command)
    work.put(account)
    return _done(work, command)


def _taken_over(work: UnitOfWork, command: PutBudget, ref: Ref, current: Account | None) -> Account | None:
    """Return the budget that becomes this one: the subject's only budget if it gets another window, or the follower of
    a default when the first limit of its own is given. Otherwise the new limit would not see the calls in flight.
    """
    if current is None or current.ref == ref:
        return None
    if not command.only and (current.pinned or command.limit is KEEP):
        return None
    target = work.account(ref)
    rows = list(work.accounts(command.subject).values())
    if (
        target is not None
        and not target.pinned
        and not target.held
        and default_of(target, rows, command.defaults) is None
    ):
        work.drop(ref)
        target = None
    return current if target is None else None


def _alike(work: UnitOfWork, command: PutBudget) -> list[Account]:
    rows = work.accounts(command.subject).values()
    return [
        row
        for row in rows
        if row.ref.model == command.model and row.ref.unit == command.unit and row.ref.window != CREDIT
    ]


def current_budget(rows: Collection[Account], defaults: tuple[Default, ...]) -> Account | None:
    """The budget that counts among a subject's budgets for one model and unit: its own, else one that follows a default, else any."""

    def order(row: Account) -> tuple[bool, bool, bool, Ref]:
        return not row.pinned, default_of(row, rows, defaults) is None, row.dropped, row.ref

    return min(rows, key=order, default=None)


def _target(work: UnitOfWork, command: PutBudget, current: Account | None) -> Ref:
    window = command.window
    if window is KEEP:
        window = current.ref.window if current is not None else _default_window(work, command)
    return Ref(*command.subject, command.model, window, command.unit)


def _default_window(work: UnitOfWork, command: PutBudget) -> str:
    followed = defaults_for(command.subject, work.accounts(command.subject).values(), command.defaults)
    alike = (ref for ref in followed if (ref.model, ref.unit) == (command.model, command.unit) and ref.window != CREDIT)
    return next((ref.window for ref in alike), "none")


def _opened(work: UnitOfWork, command: PutBudget, ref: Ref) -> Account | None:
    account = work.account(ref)
    if command.bounds is not KEEP:
        start, end = command.bounds
        if account is None:
            return Account(ref, work.new_row_id(f"P:{command.id}"), work.now, start, end)
        account.start, account.end = start, end
        account.dropped = False
        return account
    rows = work.accounts(command.subject).values()
    default = default_of(account, rows, command.defaults) if account is not None else None
    return open_window(work, ref, default, {roll.ref: roll for roll in command.rolls}, f"P:{command.id}")


def _take_over(work: UnitOfWork, account: Account, old: Account) -> None:
    """Continue `old` in `account`: its spend, its holds, its limit. Nothing that is held is lost."""
    account.id, account.epoch = old.id, old.epoch
    if old.over(work.now) or account.spent > old.spent:  # its own window has recorded more
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
    if command.seen is not KEEP:
        rows = list(work.accounts(command.subject).values())
        if tuple(states_of(rows, (), work.now)) != command.seen:
            return _done(work, command)
    for account in _matching(work, command):
        _drop(work, account)
    if command.window is None and command.model in (None, ""):
        # The defaults apply again to a subject whose budgets are forgotten.
        work.drop(whole_mark(command.subject))
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


def set_limits(work: UnitOfWork, command: SetLimits) -> Done | RollNeeded:
    """Replace all of a subject's limits set by hand by a list, in one step, or forget them."""
    if _repeated(work, command):
        return Done(command.id)
    limits = {Ref(*command.subject, each.model, each.window, each.unit): each for each in command.limits or ()}
    rolls, made_by = {roll.ref: roll for roll in command.rolls}, f"L:{command.id}"
    before = set(work.accounts(command.subject))
    opened = {ref: open_window(work, ref, None, rolls, made_by) for ref in sorted(limits)}
    due = [roll_due(work, ref) for ref, account in opened.items() if account is None]
    if due:
        return RollNeeded(work.now, tuple(due))
    for ref, account in opened.items():
        if account is not None and not (ref.window == CREDIT and account.pinned):
            account.pinned, account.limit = True, limits[ref].amount
            work.put(account)
    new = opened.keys() - before
    for ref in new:
        _take_spend_over(work, command.subject, ref, limits.keys())
    _hold_on_new(work, command.subject, new)
    for row in list(work.accounts(command.subject).values()):
        paid = row.ref == whole_mark(command.subject) or (row.ref.window == CREDIT and (row.limit or row.spent))
        if row.pinned and row.ref not in limits and not paid:
            _unpin(work, row, command.defaults)
    whole = whole_mark(command.subject)
    if command.limits is None:
        work.drop(whole)
    else:
        work.put(Account(whole, work.new_row_id(made_by), work.now, work.now, None, pinned=True))
    return _done(work, command)


def _take_spend_over(work: UnitOfWork, subject: Subject, new: Ref, kept: Collection[Ref]) -> None:
    """Count the spend of a limit that is removed on the limit that replaces it with another length. A calendar window
    begins with its own totals, and a balance with nothing, because it was paid for.
    """
    account = work.accounts(subject)[new]
    before = [
        row
        for row in work.accounts(subject).values()
        if row.ref not in kept
        and row.ref.window != CREDIT
        and not row.over(work.now)
        and (row.ref.model, row.ref.unit) == (new.model, new.unit)
    ]
    if before and new.window != CREDIT and not parse_window(new.window).period:
        most = max(before, key=lambda row: row.spent)
        account.spent, account.models = most.spent, dict(most.models)
        work.put(account)


def _hold_on_new(work: UnitOfWork, subject: Subject, refs: Collection[Ref]) -> None:
    """Count the money held for calls in flight on their subject's new accounts, too."""
    for hold in work.open_holds() if refs else ():
        added = [ref for ref in sorted(refs) if subject in hold.subjects and covers_any(ref.model, (hold.model,))]
        for ref in added:
            account = work.accounts(subject)[ref]
            account.held += hold.amounts.of(ref.unit)
            work.put(account)
        if added:
            hold.legs += tuple(added)
            work.put_hold(hold)


def _unpin(work: UnitOfWork, row: Account, defaults: tuple[Default, ...]) -> None:
    """Remove the row's limit. Its sums stay for a default, for calls in flight, and while it is blocked."""
    row.pinned, row.limit = False, None
    row.raised_by = row.raised_until = row.carry_over = row.carried = 0
    subject = Subject(row.ref.scope, row.ref.subject)
    others = [other for other in work.accounts(subject).values() if other.ref != whole_mark(subject)]
    if row.held or row.blocked or default_of(row, others, defaults) is not None:
        work.put(row)
    else:
        work.drop(row.ref)


def top_up(work: UnitOfWork, command: TopUp) -> Done:
    """Add to a balance, once."""
    mark = _top_up_of(work, command.id)
    if mark is not None:
        if (mark.subject, mark.amount) != (command.subject, command.amount):
            raise BudgetInputError(
                f"the top-up {command.id!r:.80} was made before, for {mark.subject.scope} {mark.subject.id!r}, of "
                f"${usd_text(mark.amount)}; give each payment an id of its own"
            )
        return Done(command.id)
    made_by = f"T:{command.id}"
    ref = Ref(*command.subject, window=CREDIT)
    new = work.account(ref) is None
    account = open_window(work, ref, None, {}, made_by)
    assert account is not None, "this window never ends"
    limit = (account.limit or 0) + command.amount
    if limit > MAX_NANOS:
        raise BudgetInputError(f"a balance is at most ${usd_text(MAX_NANOS)}; this top-up would exceed that")
    account.pinned, account.limit = True, limit
    work.put(account)
    _hold_on_new(work, command.subject, (ref,) if new else ())
    entry = Ref(history_scope(command.subject.scope), command.subject.id, command.id)
    work.put(Account(entry, work.new_row_id(made_by), work.now, work.now, None, pinned=True, limit=command.amount))
    reply = wire.dumps(replace(command, now=None))
    work.put_hold(Hold(top_up_mark(command.id), "done", KEPT_FOR_EVER, reply=reply))
    work.save()
    return Done(command.id)


def refund(work: UnitOfWork, command: Refund) -> Done:
    """Take a top-up back, once. Raises BudgetInputError if there is none with this id."""
    topped = _top_up_of(work, command.id)
    if topped is None:
        raise BudgetInputError(f"there is no top-up {command.id!r:.80} to be refunded")
    entry = work.account(Ref(history_scope(topped.subject.scope), topped.subject.id, command.id))
    account = work.account(Ref(*topped.subject, window=CREDIT))
    if entry is not None and account is not None and not entry.blocked:
        entry.blocked = True
        work.put(entry)
        account.limit = (account.limit or 0) - topped.amount
        work.put(account)
        work.save()
    return Done(command.id)


def history_scope(scope: str) -> str:
    """The scope whose accounts are the top-ups of a scope's subjects. The account's model is the payment's id, its
    limit is the amount paid, and it is blocked if the payment was refunded.
    """
    return f"credit:{scope}"


def _top_up_of(work: UnitOfWork, top_up: str) -> TopUp | None:
    mark = work.hold(top_up_mark(top_up))
    found = wire.loads(mark.reply) if mark is not None else None
    return found if isinstance(found, TopUp) else None


def reset(work: UnitOfWork, command: Reset) -> Done:
    """Set the spend of the open windows to zero."""
    if _repeated(work, command):
        return Done(command.id)
    for account in _matching(work, command):
        # A window that has ended already counts as empty, and its unused rest has yet to be carried over.
        if not account.over(work.now):
            account.clear()
            work.put(account)
    return _done(work, command)


def _matching(work: UnitOfWork, command: DropBudget | Reset) -> list[Account]:
    return [
        account
        for account in list(work.accounts(command.subject).values())
        if command.model in (None, account.ref.model)
        # A balance was paid for: only a command that names its window changes it.
        and (command.window == account.ref.window or (command.window is None and account.ref.window != CREDIT))
    ]


def _repeated(work: UnitOfWork, command: PutBudget | DropBudget | Reset | SetLimits) -> bool:
    """Whether this command was applied before. Raises BudgetInputError if its id belongs to another one."""
    mark = work.hold(command_mark(command.id))
    if mark is not None and mark.reply and mark.reply != _digest(command):
        raise BudgetInputError(
            f"the id {command.id!r:.80} was used for another change; give each change an id of its own"
        )
    return mark is not None


def _done(work: UnitOfWork, command: PutBudget | DropBudget | Reset | SetLimits) -> Done:
    work.put_hold(Hold(command_mark(command.id), "done", work.now, reply=_digest(command)))
    work.save()
    return Done(command.id)


def _digest(command: PutBudget | DropBudget | Reset | SetLimits) -> str:
    """A digest of a command, as JSON text. A repeated command may come with other windows, at another time, or from a
    process with other defaults: these are left out.
    """
    said = replace(command, now=None)
    if isinstance(said, (PutBudget, SetLimits)):
        said = replace(said, rolls=(), defaults=())
    return f'"{hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'
