"""The ledger: every command applied to a store, by rules written once.

`apply` over a `DictRowStore` is the executable specification. Every store either runs these rules over its own store or is
compared with them, reply by reply. The invariant: no Reserve leaves spent + held above the limit of an account that
it names; held is the sum of the open holds; every charge is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Default, Subject
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.budgets import drop_budget, put_budget, refund, reset, set_limits, top_up
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    Accounts,
    AccountState,
    Change,
    Command,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Refund,
    Release,
    Renew,
    Reply,
    Reserve,
    Reset,
    SetLimits,
    Settle,
    Sweep,
    Swept,
    TopUp,
    UsageRows,
)
from litellm_budget_plugin.core.holding import MOST_DUE, expire_due
from litellm_budget_plugin.core.reserving import reserve
from litellm_budget_plugin.core.row_store import FullRowStore, RowStore, UnitOfWork
from litellm_budget_plugin.core.settling import release, renew, settle
from litellm_budget_plugin.core.windows import DAY


def apply(store: FullRowStore, command: Command, now: int) -> Reply:
    """Apply one command at the time `now` (microseconds). The caller serialises commands of one project.

    Raises BudgetInputError, having changed nothing, for a command whose amounts or times are out of range.
    """
    check(command)
    if isinstance(command, Read):
        return _read(store, command, now)
    if isinstance(command, ReadUsage):
        rows = store.usage_rows(command.project, command.scope, command.subject, command.since, command.until)
        return UsageRows(tuple(rows))
    return _sweep(store, command, now) if isinstance(command, Sweep) else change(store, command, now)


def change(store: RowStore, command: Change, now: int) -> Reply:
    """Apply one command that names what it changes; see `apply`. The command has been checked."""
    return _RULES[type(command)](UnitOfWork(store, command.project, now), command)


def _read(store: FullRowStore, command: Read, now: int) -> Accounts:
    expire_some(store, command.project, now)
    if command.subject is not None:
        ids, after = [command.subject], None
    else:
        ids = store.subjects(command.project, command.scope, command.after, command.page)
        after = ids[-1] if len(ids) == command.page else None
    states = [
        state
        for subject in ids
        for state in states_of(store.accounts(command.project, Subject(command.scope, subject)), command.defaults, now)
    ]
    return Accounts(now, tuple(states), after)


def states_of(rows: Collection[Account], defaults: tuple[Default, ...], now: int) -> list[AccountState]:
    """A subject's accounts as readers see them at `now`, in the order of their keys."""
    return [state_of(row, default_of(row, rows, defaults), now) for row in sorted(rows, key=_ref)]


_ref = attrgetter("ref")


def state_of(recorded: Account, default: Default | None, now: int) -> AccountState:
    """An account as readers see it at `now`: one whose window has ended looks empty, but is not changed."""
    account, ended = recorded, recorded.over(now)
    if ended:
        account = recorded.copy()
        account.begin_window(recorded.start, recorded.end, default)
    return AccountState(
        ref=account.ref,
        pinned=account.pinned,
        own_limit=account.limit,
        limit=account.effective_limit(default, now),
        spent=account.spent,
        held=account.held,
        start=account.start,
        end=account.end,
        ended=ended,
        blocked=account.blocked,
        raised_by=account.raised_by,
        raised_until=account.raised_until,
        carry_over=account.carry_over,
        carried=account.carried,
        created_at=account.created_at,
        epoch=recorded.epoch,
        models=tuple(sorted(account.models.items())),
    )


def expire_some(store: RowStore, project: str, now: int, most: int | None = MOST_DUE) -> int:
    """Expire up to `most` holds that are due, and return how many."""
    work = UnitOfWork(store, project, now)
    expired = expire_due(work, most)
    work.save()
    return expired


def _sweep(store: FullRowStore, command: Sweep, now: int) -> Swept:
    expired = expire_some(store, command.project, now, None)
    forgotten = store.forget(command.project, now - command.marks_kept)
    return Swept(expired, forgotten, store.fold(command.project, (now - command.days_kept) // DAY))


_RULES: dict[type, Callable[[UnitOfWork, Any], Reply]] = {
    Reserve: reserve,
    Settle: settle,
    Release: release,
    Renew: renew,
    PutBudget: put_budget,
    DropBudget: drop_budget,
    Reset: reset,
    SetLimits: set_limits,
    TopUp: top_up,
    Refund: refund,
}
