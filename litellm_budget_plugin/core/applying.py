"""The accounts that a command applies to, and the opening of their windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject
from litellm_budget_plugin.core.commands import AccountState, Reserve, Roll, RollDue, Settle
from litellm_budget_plugin.core.models import covers_any
from litellm_budget_plugin.core.row_store import UnitOfWork
from litellm_budget_plugin.core.windows import CREDIT, ENDLESS


def whole_mark(subject: Subject) -> Ref:
    """The account that marks a subject's limits set by hand as complete: no default applies. It counts nothing."""
    return Ref(*subject, model="*", unit="calls")


class Applying(NamedTuple):
    """An account that a command applies to, with the default that it follows (None if it follows none)."""

    account: Account
    default: Default | None


class Row(Protocol):
    """An account, or the state of one."""

    @property
    def ref(self) -> Ref:
        """Its key."""

    @property
    def pinned(self) -> bool:
        """Whether it has a limit of its own."""


def defaults_for(subject: Subject, rows: Iterable[Row], defaults: tuple[Default, ...]) -> dict[Ref, Default]:
    """The defaults that apply to a subject with these accounts, by the accounts that follow them.

    Defaults that name the subject replace those that name none. A limit set by hand replaces the default for the same model
    and unit, and a whole list set by hand replaces all defaults. A balance and other limits do not affect each other.
    """
    scope, name = subject
    ours = [each for each in defaults if each.scope == scope]
    if not ours:
        return {}
    found = [each for each in ours if each.subject == name] or [each for each in ours if not each.subject]
    followers = {Ref(scope, name, each.model, each.window, each.unit): each for each in found}
    pinned = [row.ref for row in rows if row.pinned]
    if not pinned:
        return followers
    if whole_mark(subject) in pinned:
        return {}
    taken = {_place(ref) for ref in pinned}
    return {ref: each for ref, each in followers.items() if _place(ref) not in taken}


def _place(ref: Ref) -> tuple[str, str, bool]:
    return ref.model.casefold(), ref.unit, ref.window == CREDIT


def limits_on(
    subject: Subject, states: Iterable[AccountState], models: tuple[str, ...] | None, defaults: tuple[Default, ...]
) -> list[tuple[Ref, int | None, AccountState | None]]:
    """The limits on a call of these models (None: of any) for a subject, from the state of its accounts: each account's key, its limit (0
    if it is blocked, None if it has none), and its state (None if it does not exist yet). The rules are those of `applying_accounts`.
    """
    known = {state.ref: state for state in states}
    followers = defaults_for(subject, known.values(), defaults)
    found: list[tuple[Ref, int | None, AccountState | None]] = []
    for ref in sorted(known.keys() | followers.keys()):
        if ref == whole_mark(subject) or not (models is None or covers_any(ref.model, models)):
            continue
        state = known.get(ref)
        if state is not None and (state.blocked or state.pinned):
            found.append((ref, 0 if state.blocked else state.limit, state))
        elif ref in followers:
            found.append((ref, followers[ref].limit if state is None else state.limit, state))
    return found


def default_of(account: Account, rows: Iterable[Account], defaults: tuple[Default, ...]) -> Default | None:
    """The default that an account follows; `rows` are all accounts of its subject."""
    if account.pinned:
        return None
    return defaults_for(Subject(account.ref.scope, account.ref.subject), rows, defaults).get(account.ref)


def applying_accounts(
    work: UnitOfWork, command: Reserve | Settle, held_on: tuple[Ref, ...] = ()
) -> tuple[list[Applying], list[RollDue]]:
    """The accounts that apply, in the order of their keys, and the windows that are new or have ended despite `rolls`.

    An account applies if it has a limit of its own, is blocked, or follows a default, and if it is for any model or
    covers one of the command's. `held_on` are the accounts of the hold being settled: they apply too, because the
    defaults may have changed since it was granted.
    """
    rolls = {roll.ref: roll for roll in command.rolls}
    made_by = f"{type(command).__name__[0]}:{command.hold}"
    found: list[Applying] = []
    due: list[RollDue] = []
    for subject in sorted(set(command.subjects)):
        rows = work.accounts(subject)
        named = _named(subject, rows, command.models, command.defaults)
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
    subject: Subject, rows: Mapping[Ref, Account], models: tuple[str, ...], defaults: tuple[Default, ...]
) -> dict[Ref, Default | None]:
    named: dict[Ref, Default | None] = {}
    own = [ref for ref, row in rows.items() if row.pinned or row.blocked]
    if own:
        mark = whole_mark(subject)
        # Accounts that followed a default are still counted: the defaults may apply again.
        counted = [ref for ref, row in rows.items() if not row.dropped] if mark in own else own
        named = {ref: None for ref in counted if ref != mark and covers_any(ref.model, models)}
    followers = defaults_for(subject, rows.values(), defaults)
    named.update({ref: each for ref, each in followers.items() if covers_any(ref.model, models)})
    return named


def _still_counts(work: UnitOfWork, ref: Ref) -> bool:
    account = work.account(ref)
    if account is None or account.dropped:
        return False
    rows = work.accounts(Subject(ref.scope, ref.subject)).values()
    return not any(row.pinned and _place(row.ref) == _place(ref) for row in rows)


def open_window(
    work: UnitOfWork, ref: Ref, default: Default | None, rolls: dict[Ref, Roll], command: str
) -> Account | None:
    """The account with an open window, made or rolled if necessary; None if that needs a roll that is missing.
    `command` identifies the command that asks, by its kind and its id.

    A roll is a compare-and-set on the recorded end: if it no longer matches, another process has rolled the window.
    """
    account = work.account(ref)
    roll = rolls.get(ref)
    usable = roll is not None and roll.start <= work.now and (roll.end is None or work.now < roll.end)
    if account is None:
        if ref.window in ENDLESS:
            account = Account(ref, work.new_row_id(command), work.now, work.now, None)
        elif roll is not None and usable and roll.old_end is None:
            account = Account(ref, work.new_row_id(command), work.now, roll.start, roll.end)
            for model, amount in roll.spent:
                account.charge(amount, model)
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
    """The data from which the caller computes the bounds."""
    account = work.account(ref)
    return RollDue(ref, None, None) if account is None else RollDue(ref, account.start, account.end)
