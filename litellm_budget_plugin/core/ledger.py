"""The ledger: every command applied to a book, by rules written once.

`apply` over a `DictBook` is the executable specification. Every store either runs these rules over its own book or is
compared with them, reply by reply. The invariant: no Reserve leaves spent + held above the limit of an account that
it names; held is the sum of the open holds; every charge is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.book import Book, WholeBook, Work
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
from litellm_budget_plugin.core.settling import release, renew, settle
from litellm_budget_plugin.core.windows import DAY


def apply(book: WholeBook, command: Command, now: int) -> Reply:
    """Apply one command at the time `now` (microseconds). The caller serialises commands of one project.

    Raises BudgetInputError, having changed nothing, for a command whose amounts or times are out of range.
    """
    check(command)
    if isinstance(command, Read):
        return _read(book, command, now)
    if isinstance(command, ReadUsage):
        rows = book.usage_rows(command.project, command.scope, command.subject, command.since, command.until)
        return UsageRows(tuple(rows))
    return _sweep(book, command, now) if isinstance(command, Sweep) else change(book, command, now)


def change(book: Book, command: Change, now: int) -> Reply:
    """Apply one command that names what it changes; see `apply`. The command has been checked."""
    return _RULES[type(command)](Work(book, command.project, now), command)


def _read(book: WholeBook, command: Read, now: int) -> Accounts:
    expire_some(book, command.project, now)
    if command.subject is not None:
        ids, after = [command.subject], None
    else:
        ids = book.subjects(command.project, command.scope, command.after, command.page)
        after = ids[-1] if len(ids) == command.page else None
    states = [
        state
        for subject in ids
        for state in states_of(book.accounts(command.project, Subject(command.scope, subject)), command.defaults, now)
    ]
    return Accounts(now, tuple(states), after)


def expire_some(book: Book, project: str, now: int, most: int | None = MOST_DUE) -> int:
    """Expire up to `most` holds that are due, and return how many."""
    work = Work(book, project, now)
    expired = expire_due(work, most)
    work.save()
    return expired


def _sweep(book: WholeBook, command: Sweep, now: int) -> Swept:
    expired = expire_some(book, command.project, now, None)
    forgotten = book.forget(command.project, now - command.marks_kept)
    return Swept(expired, forgotten, book.fold(command.project, (now - command.days_kept) // DAY))


_RULES: dict[type, Callable[[Work, Any], Reply]] = {
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
