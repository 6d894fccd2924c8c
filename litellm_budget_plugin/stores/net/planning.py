"""Plans of what a command adds to sums, made by the rules from rows that may be old; see guarded.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import default_of
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    HEADROOM,
    Command,
    Granted,
    Release,
    Released,
    Reply,
    Reserve,
    Settle,
    Settled,
)
from litellm_budget_plugin.core.names import clean_label
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.stores.net.engine import Add, Seen, Sum, View
from litellm_budget_plugin.stores.net.recent import Recent
from litellm_budget_plugin.stores.net.transaction import shape_of

Guarded = Reserve | Settle | Release
# Takes half as long in isinstance as the union.
GUARDED = (Reserve, Settle, Release)
_FOREVER = 2**62


class Plan(NamedTuple):
    """The reply to a command if `add` is applied, or at once if there is nothing to add. With `exact`, the reply is
    right only for rows that were read for it.
    """

    reply: Reply
    add: Add | None
    read: dict[Subject, Seen]
    accounts: dict[Ref, Account]
    exact: bool


class Unknown(Exception):
    """The rules need a row that is not known here, or change more than sums."""


class KnownRows:
    """A `core.row_store.RowStore` of rows seen before. It records which subjects were read, and their versions."""

    def __init__(
        self, known: Recent[tuple[str, Subject], Seen], holds: Mapping[str, Hold | None], view: View | None
    ) -> None:
        self._known = known
        self._holds = holds
        self._view = view
        self.read: dict[Subject, Seen] = {}
        self.asked: dict[str, Hold | None] = {}
        self.changes = Changes()

    def accounts(self, project: str, subject: Subject) -> list[Account]:
        """Every account of a subject."""
        seen = None if self._view is None else self._view.subjects.get(subject)
        seen = seen or self._known.get((project, subject))
        if seen is None:
            raise Unknown
        self.read[subject] = seen
        return [account.copy() for account in seen.accounts]

    def hold(self, project: str, hold: str) -> Hold | None:  # noqa: ARG002  # the protocol's
        """One of the command's holds. A closed one needs a transaction."""
        if hold not in self._holds:
            raise Unknown
        found = self.asked[hold] = self._holds[hold]
        if found is None:
            return None
        if found.state != "open":
            raise Unknown
        return found.copy()

    def due(self, project: str, now: int, most: int | None) -> list[Hold]:  # noqa: ARG002
        """No holds. Called before a refusal: if the view has due holds, a transaction must expire them."""
        if self._view is not None and self._view.due:
            raise Unknown
        return []

    def write(self, project: str, changes: Changes) -> None:  # noqa: ARG002
        """Take a command's changes."""
        self.changes = changes

    def recorded(self, ref: Ref) -> Account:
        """An account as it was read."""
        for account in self.read[ref[:2]].accounts:  # type: ignore[index]  # equal to the subject
            if account.ref == ref:
                return account
        raise Unknown

    def open_holds(self, project: str) -> list[Hold]:  # noqa: ARG002
        """Not known here."""
        raise Unknown

    def usage(self, project: str, key: UsageKey) -> Usage | None:  # noqa: ARG002
        """Not known here."""
        raise Unknown


def is_plain(command: Guarded) -> bool:
    """Whether a command possibly adds to sums only."""
    if isinstance(command, Reserve):
        return not command.rolls
    return isinstance(command, Release) or not (command.unless or command.rolls)


def holds_of(command: Guarded) -> tuple[str, ...]:
    """The holds of a command: its own, and the one that it draws from or replaces."""
    other = (
        command.replaces if isinstance(command, Reserve) else command.parent if isinstance(command, Settle) else None
    )
    return (command.hold,) if other is None else (command.hold, other)


def addable(commands: Sequence[Command]) -> Iterator[Guarded]:
    """Yield the first commands that possibly add to sums only. Raises BudgetInputError at one that cannot be accepted."""
    for command in commands:
        if not isinstance(command, GUARDED) or not is_plain(command):
            return
        check(command)
        yield command


def plan_of(command: Guarded, reply: Reply, book: KnownRows, now: int, *, test_clock: bool) -> Plan:
    """The plan for a command that the rules answer with `reply` at `now` (microseconds) over a book. Raises Unknown if
    it changes more than sums.
    """
    changes, exact = book.changes, not _is_yes(command, reply)
    if not changes.holds:
        if changes.accounts:  # opened by a refusal that is not recorded
            raise Unknown
        return Plan(reply, None, book.read, {}, exact=True)
    if book.asked.keys() - changes.holds.keys():  # the reply depends on it, and nothing guards it
        raise Unknown
    accounts: dict[Ref, Account] = {}
    sums = []
    for ref in sorted(changes.accounts):
        old, new = book.recorded(ref), changes.accounts[ref]
        # A dropped account is deleted with the last hold on it, which may be this one even if more seems to be held.
        if new is None or new.dropped or shape_of(new) != shape_of(old):
            raise Unknown
        accounts[ref] = new
        sums.append(_sum(command, book, old, new, now, exact=exact))
    since, until = _valid(command, book, now)
    holds: list[tuple[Hold, Hold | None]] = []
    marks: list[str] = []
    for hold in changes.holds.values():
        if hold.state == "alias":
            marks.append(hold.id)
        else:
            hold.at = hold.at - now if hold.state == "open" else 0
            holds.append((hold, book.asked[hold.id]))
    add = Add(
        command.project,
        since,
        until,
        tuple([(subject, seen.version) for subject, seen in book.read.items()]),
        tuple(sums),
        tuple(holds),
        tuple(marks),
        changes.usage,
        command.now if test_clock else None,
    )
    return Plan(reply, add, book.read, accounts, exact)


def _is_yes(command: Guarded, reply: Reply) -> bool:
    """Whether a reply is right for any rows that the guards of an Add let pass."""
    if isinstance(command, Reserve):
        return isinstance(reply, Granted) and reply.amounts == command.want
    return isinstance(reply, (Released, Settled))


def _sum(command: Guarded, book: KnownRows, old: Account, new: Account, now: int, *, exact: bool) -> Sum:
    most = None
    if isinstance(command, Reserve):
        wanted = command.want.of(old.ref.unit)
        rows = book.read[Subject(old.ref.scope, old.ref.subject)].accounts
        default = default_of(old, rows, command.defaults)
        limit = old.effective_limit(default, now)
        if limit is not None and wanted:
            # A loose bound needs room for many times as much.
            times = HEADROOM if command.cheap and old.ref.unit != "calls" else 1
            most = limit - (times - 1) * wanted
    return Sum(
        old.ref,
        new.spent - old.spent,
        new.held - old.held,
        clean_label(command.model) if isinstance(command, Settle) else "",
        None if exact else most,
        (old.spent, old.held) if exact else None,
    )


def _valid(command: Guarded, book: KnownRows, now: int) -> tuple[int, int]:
    """The times between which the rules give the same answer: the same day, the same windows, the same raises."""
    if isinstance(command, Settle) and command.at is not None and command.at <= now:
        since, until = command.at, _FOREVER
    else:
        since = now // DAY * DAY
        until = since + DAY
    for seen in book.read.values():
        for account in seen.accounts:
            if account.end is not None and account.soonest <= now:
                since = max(since, account.soonest)
            if account.raised_until <= now:  # by the server's clock, the raise may not have ended yet
                since = max(since, account.raised_until)
            for end in (account.end, account.raised_until):
                if end is not None and end > now:
                    until = min(until, end)
    return since, until
