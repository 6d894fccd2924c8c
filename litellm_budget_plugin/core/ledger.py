"""The ledger: every command applied to a book, by rules written once.

`Ledger(DictBook(), ...)` is the executable specification. Every store either runs these rules over its own book or is
compared with them, reply by reply. The invariant: no Reserve leaves spent + held above the limit of an account that
it names; held is the sum of the open holds; every charge is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from litellm_budget_plugin.core.accounts import Account, Default, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.book import Book, Changes, WholeBook, Work
from litellm_budget_plugin.core.budgets import drop_budget, put_budget, reset
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
    Release,
    Renew,
    Reply,
    Reserve,
    Reset,
    Settle,
    Sweep,
    Swept,
    UsageRows,
)
from litellm_budget_plugin.core.holding import MOST_DUE, expire_due
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
        state_of(account, default_of(account, command.defaults), now)
        for subject in ids
        for account in sorted(book.accounts(command.project, Subject(command.scope, subject)), key=_ref)
    ]
    return Accounts(now, tuple(states), after)


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
}


_NEVER = 2**63


class DictBook:
    """Rows in plain dictionaries. Not safe for threads by itself."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, Subject], dict[Ref, Account]] = {}
        self._holds: dict[str, dict[str, Hold]] = {}
        self._open: dict[str, dict[str, Hold]] = {}
        self._usage: dict[str, dict[UsageKey, Usage]] = {}
        # No hold's time limit comes before this: most commands need not look through all that are open.
        self._soonest: dict[str, int] = {}

    def projects(self) -> set[str]:
        """Every project that has a row."""
        subjects = {project for (project, _), rows in self._accounts.items() if rows}
        return subjects.union(
            *({project for project, rows in kind.items() if rows} for kind in (self._holds, self._usage))
        )

    def keys(self, project: str) -> list[Subject | str | UsageKey]:
        """What names the rows of a project, in order: subjects with accounts, then the ids of holds, then the totals."""
        subjects = sorted(subject for (owner, subject), rows in self._accounts.items() if owner == project and rows)
        return [*subjects, *sorted(self._holds.get(project, ())), *sorted(self._usage.get(project, ()))]

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""
        return [account.copy() for account in self._accounts.get((project, subject), {}).values()]

    def hold(self, project: str, hold: str) -> Hold | None:
        """A hold or a mark by its id."""
        found = self._holds.get(project, {}).get(hold)
        return found.copy() if found else None

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:
        """Open holds whose time limit has come, in the order of (limit, id)."""
        if now < self._soonest.get(project, _NEVER):
            return []
        still_open = self._open.get(project, {}).values()
        due = [hold for hold in still_open if hold.at <= now]
        self._soonest[project] = min((hold.at for hold in still_open), default=_NEVER)
        return [hold.copy() for hold in sorted(due, key=lambda hold: (hold.at, hold.id))[:most]]

    def open_holds(self, project: str) -> list[Hold]:
        """Every open hold."""
        return [hold.copy() for _, hold in sorted(self._open.get(project, {}).items())]

    def usage(self, project: str, key: UsageKey) -> Usage | None:
        """One row of totals."""
        return self._usage.get(project, {}).get(key)

    def write(self, project: str, changes: Changes) -> None:
        """Apply the changes; an interrupt in the middle does not leave half of them."""
        usage = self._usage.get(project, {})
        totals = {key: usage.get(key, Usage()).plus(added) for key, added in changes.usage.items()}
        try:
            self._put(project, changes, totals)
        except BaseException:
            # Every row is replaced by a whole one, so going through all of them again completes what was begun.
            self._put(project, changes, totals)
            raise

    def _put(self, project: str, changes: Changes, totals: dict[UsageKey, Usage]) -> None:
        for ref, account in changes.accounts.items():
            rows = self._accounts.setdefault((project, Subject(ref.scope, ref.subject)), {})
            if account is None:
                rows.pop(ref, None)
            else:
                rows[ref] = account
        holds, still_open = self._holds.setdefault(project, {}), self._open.setdefault(project, {})
        for hold in changes.holds.values():
            holds[hold.id] = hold
            if hold.state == "open":
                still_open[hold.id] = hold
                self._soonest[project] = min(hold.at, self._soonest.get(project, _NEVER))
            else:
                still_open.pop(hold.id, None)
        self._usage.setdefault(project, {}).update(totals)

    def subjects(self, project: str, scope: str, after: str, most: int) -> list[str]:
        """Ids with an account in a scope, in order, one page."""
        ids = (
            subject.id
            for (owner, subject), rows in self._accounts.items()
            if owner == project and subject.scope == scope and subject.id > after and rows
        )
        return sorted(ids)[:most]

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""
        return sorted(
            (key, usage)
            for key, usage in self._usage.get(project, {}).items()
            if key.scope == scope and subject in (None, key.subject) and since <= key.day <= until
        )

    def forget(self, project: str, before: int) -> int:
        """Delete marks closed before a time."""
        holds = self._holds.get(project, {})
        old = [hold.id for hold in holds.values() if hold.state != "open" and hold.at < before]
        for hold in old:
            del holds[hold]
        return len(old)

    def fold(self, project: str, before_day: int) -> int:
        """Add the totals of earlier days to day 0."""
        usage = self._usage.get(project, {})
        old = [key for key in usage if 0 < key.day < before_day]
        for key in old:
            folded = key._replace(day=0)
            usage[folded] = usage.get(folded, Usage()).plus(usage.pop(key))
        return len(old)
