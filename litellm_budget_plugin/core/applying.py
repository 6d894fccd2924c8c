"""Which accounts a command names, and the opening of their windows."""

from __future__ import annotations

from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject
from litellm_budget_plugin.core.commands import Reserve, Roll, RollDue, Settle
from litellm_budget_plugin.core.row_store import UnitOfWork


class Applying(NamedTuple):
    """An account that a command names, with the default that it follows (None if it has a limit of its own)."""

    account: Account
    default: Default | None


def default_of(account: Account, defaults: tuple[Default, ...]) -> Default | None:
    """The default that an account without a limit of its own follows."""
    if account.pinned:
        return None
    scope, _, model, window, unit = account.ref
    for default in defaults:
        if (default.scope, default.model, default.window, default.unit) == (scope, model, window, unit):
            return default
    return None


def applying_accounts(
    work: UnitOfWork, command: Reserve | Settle, held_on: tuple[Ref, ...] = ()
) -> tuple[list[Applying], list[RollDue]]:
    """The accounts that apply, in the order of their keys, and the windows that are new or over despite `rolls`.

    An account applies if it has a limit of its own, is blocked, or follows a default, and if it is for any model or
    for one of the command's. A default gives way to a subject's own limit for the same model and unit. `held_on` are those of
    the hold that is settled: they apply too, for the defaults may have changed since it was granted.
    """
    rolls = {roll.ref: roll for roll in command.rolls}
    made_by = f"{type(command).__name__[0]}:{command.hold}"
    found: list[Applying] = []
    due: list[RollDue] = []
    for subject in sorted(set(command.subjects)):
        named = _named(work, subject, command.models, command.defaults)
        for ref in held_on:
            if (ref.scope, ref.subject) == subject and ref not in named and _still_counts(work, ref):
                named[ref] = None
        for ref in sorted(named):
            default = named[ref]
            account = open_window(work, ref, default, rolls, made_by)
            if account is None:
                due.append(roll_due(work, ref))
            else:
                found.append(Applying(account, default))
    return found, due


def _named(
    work: UnitOfWork, subject: Subject, models: tuple[str, ...], defaults: tuple[Default, ...]
) -> dict[Ref, Default | None]:
    named: dict[Ref, Default | None] = {}
    pinned = set()
    for ref, account in work.accounts(subject).items():
        if account.pinned:
            pinned.add((ref.model, ref.unit))
        if (account.pinned or account.blocked) and (not ref.model or ref.model in models):
            named[ref] = None
    for default in defaults:
        if default.scope != subject.scope or (default.model, default.unit) in pinned:
            continue
        if not default.model or default.model in models:
            named[Ref(subject.scope, subject.id, default.model, default.window, default.unit)] = default
    return named


def _still_counts(work: UnitOfWork, ref: Ref) -> bool:
    account = work.account(ref)
    if account is None or account.dropped:
        return False
    rows = work.accounts(Subject(ref.scope, ref.subject)).values()
    return not any(row.pinned and (row.ref.model, row.ref.unit) == (ref.model, ref.unit) for row in rows)


def open_window(
    work: UnitOfWork, ref: Ref, default: Default | None, rolls: dict[Ref, Roll], command: str
) -> Account | None:
    """The account with an open window, made or rolled if need be; None if that takes a roll that is not there.
    `command` names the command that asks, by its kind and its id.

    A roll is a compare-and-set on the recorded end: if that no longer matches, another process has rolled.
    """
    account = work.account(ref)
    roll = rolls.get(ref)
    usable = roll is not None and roll.start <= work.now and (roll.end is None or work.now < roll.end)
    if account is None:
        if ref.window == "none":
            account = Account(ref, work.new_row_id(command), work.now, work.now, None)
        elif roll is not None and usable and roll.old_end is None:
            account = Account(ref, work.new_row_id(command), work.now, roll.start, roll.end)
        else:
            return None
        work.put(account)
    elif account.over(work.now):
        if roll is None or not usable or roll.old_end != account.end:
            return None
        account.begin_window(roll.start, roll.end, default)
        work.put(account)
    account.dropped = False
    return account


def roll_due(work: UnitOfWork, ref: Ref) -> RollDue:
    """What the caller must know to compute the bounds."""
    account = work.account(ref)
    return RollDue(ref, None, None) if account is None else RollDue(ref, account.start, account.end)
