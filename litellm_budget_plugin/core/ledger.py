"""The ledger: every command applied to a store, by rules written once.

`apply` over a `DictRowStore` is the executable specification. Every store either runs these rules over its own store or is
compared with them, reply by reply. The invariant: no Reserve leaves spent + held above the limit of an account that
it names; held is the sum of the open holds; every charge is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.budgets import drop_budget, put_budget, refund, reset, set_limits, top_up
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    Accounts,
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
from litellm_budget_plugin.core.reading import states_of
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
