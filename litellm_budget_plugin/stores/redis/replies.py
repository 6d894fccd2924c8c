"""From what a script returns to the reply of its command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Amounts, Ref, Usage, UsageKey
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.commands import (
    Accounts,
    AccountState,
    AlreadyCharged,
    Closed,
    Command,
    CountExactly,
    Crossing,
    Done,
    DropBudget,
    Granted,
    PutBudget,
    Read,
    Refused,
    Release,
    Released,
    Renew,
    Renewed,
    Reply,
    Reserve,
    Reset,
    RollDue,
    RollNeeded,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.ledger import state_of

# Scripts return whole numbers as integers or, where they do not fit a double, as digits: int() takes both.


def reply_to(command: Command, answer: Any) -> Reply:
    """The reply to any command that one run of a script answers for good."""
    return _REPLIES[type(command)](command, answer)


def text(value: bytes) -> str:
    """What a script returned as text."""
    return value.decode()


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _reserved(command: Reserve, answer: Any) -> Reply:
    hold = command.hold
    if answer == 1:
        return Granted(hold, command.want)
    kind, *rest = answer
    if kind == b"Granted":
        return Granted(hold, Amounts(*rest))
    if kind == b"Refused":
        return refused_of(hold, rest)
    if kind == b"RollNeeded":
        return _roll_needed(rest)
    return Closed(hold) if kind == b"Closed" else CountExactly(hold)


def refused_of(hold: str, rest: Sequence[Any]) -> Refused:
    """What follows {"Refused", in the reply of reserve.lua and in a mark."""
    reason: Any = text(rest[5])
    limit, spent, held, requested = map(int, rest[6:10])
    return Refused(hold, _ref(rest), reason, limit, spent, held, requested, _number(rest[10]))


def _settled(command: Settle, answer: Any) -> Reply:
    if answer != 1 and answer[0] == b"RollNeeded":
        return _roll_needed(answer[1:])
    return settled_of(command.hold, answer)


def settled_of(hold: str, answer: Any) -> Settled | AlreadyCharged:
    """What a charge was answered."""
    if answer == 1:
        return Settled(hold)
    if answer[0] == b"AlreadyCharged":
        return AlreadyCharged(hold)
    return Settled(hold, tuple(Crossing(_ref(row), *map(int, row[5:])) for row in answer[1:]))


def _changed(command: PutBudget | DropBudget | Reset, answer: Any) -> Reply:
    return Done(command.id) if answer == 1 else _roll_needed(answer[1:])


def _ref(parts: Sequence[bytes]) -> Ref:
    return Ref(*map(text, parts[:5]))


def _roll_needed(rest: Sequence[Any]) -> RollNeeded:
    now, *due = rest
    return RollNeeded(now, tuple(RollDue(_ref(row), _number(row[5]), _number(row[6])) for row in due))


_REPLIES: dict[type, Callable[[Any, Any], Reply]] = {
    Reserve: _reserved,
    Settle: _settled,
    Release: lambda command, _: Released(command.hold),
    Renew: lambda _, answer: Renewed(tuple(map(text, answer))),
    PutBudget: _changed,
    DropBudget: _changed,
    Reset: _changed,
}


def accounts_of(command: Read, answer: Any) -> Accounts:
    """One page of accounts, as they stand now."""
    now, after, *subjects = answer
    states: list[AccountState] = []
    for subject in subjects:
        rows = listed_accounts(command.scope, subject)
        states += [state_of(row, default_of(row, command.defaults), now) for row in sorted(rows, key=_key)]
    return Accounts(now, tuple(states), None if after is None else text(after))


def _key(account: Account) -> Ref:
    return account.ref


def listed_accounts(scope: str, listed: Sequence[Any]) -> list[Account]:
    """The rows that `work.listed` of rows.lua gives for one subject."""
    subject = text(listed[0])
    return [_account(scope, subject, row) for row in listed[1:]]


def _account(scope: str, subject: str, row: Sequence[Any]) -> Account:
    model, window, unit, row_id = map(text, row[:4])
    created_at, start, end, pinned, limit, spent, held, epoch, models = row[4:13]
    blocked, raised_by, raised_until, carry_over, carried, dropped, alerted, alert_limit = row[13:]
    return Account(
        Ref(scope, subject, model, window, unit),
        row_id,
        created_at,
        start,
        end,
        pinned == 1,
        limit,
        int(spent),
        int(held),
        epoch,
        blocked == 1,
        raised_by,
        raised_until,
        carry_over,
        carried,
        dropped == 1,
        alerted,
        alert_limit,
        {text(name): int(amount) for name, amount in zip(models[::2], models[1::2])},
    )


def usage_row(scope: str, row: Sequence[Any]) -> tuple[UsageKey, Usage]:
    """One row of totals."""
    subject, day, model, *numbers = row
    return UsageKey(scope, text(subject), day, text(model)), Usage(*map(int, numbers))
