"""The interface to a server, which stores rows and knows no rules.

There are two ways to change rows. `transact` runs the rules of core/ over rows while no other client changes rows of
the project: two round trips. `add` changes sums that a client has computed from rows it saw before: one round trip. The
server checks everything that the rules depend on, and changes nothing if the client was wrong.

Each subject has a version. It changes when an account of the subject is made, deleted, or changed in anything but its
sums (`spent`, `held`, `models`), and never when only sums change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from litellm_budget_plugin.core.accounts import Account, Hold, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.rows import Page, Rows

T = TypeVar("T")


class Seen(NamedTuple):
    """A subject's accounts, in any order, and their version: a random number from 1 to 2^52, or 0 for a subject without accounts."""

    version: int
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Rows as they were at one moment, `now` (microseconds, the server's clock or a test's). Nothing is locked.

    `due`: an open hold of the project has reached its time limit.
    """

    now: int
    due: bool
    subjects: Mapping[Subject, Seen]
    holds: Mapping[str, Hold | None]


class Sum(NamedTuple):
    """The amounts added to one account: `spent` (also to its breakdown, under `model`) and `held`; either may be negative.

    Afterwards spent + held must not exceed `most` (None: no limit). If `known` is given, (spent, held) must have been
    exactly that before.
    """

    ref: Ref
    spent: int = 0
    held: int = 0
    model: str = ""
    most: int | None = None
    known: tuple[int, int] | None = None


@dataclass(slots=True)
class Add:
    """One guarded step, applied as a whole or not at all.

    It is applied if all of this is true when it arrives: `since` <= now < `until` (the day of the totals, the ends of windows and
    raises); each of `subjects` has the given version; each of `sums` keeps its bounds; and each pair of `holds`, the new hold and the
    expected one, matches: with None expected, nothing is recorded under the id; otherwise the recorded hold is open and has the
    expected amounts and legs (a budget with another window takes over its open holds).

    Then the sums are added. The holds are stored: a new one with its `at` counted from now (the time limit in microseconds), a mark
    with `at` now; a hold that stays open keeps its time limit. Each of `marks` is stored as a mark of state "alias", at now. `usage`
    is added to the totals. Nothing else changes. `sums` are in the order of their refs, and the subject of each is among `subjects`.

    `now` is a test's clock, None for the server's.
    """

    project: str
    since: int
    until: int
    subjects: tuple[tuple[Subject, int], ...]
    sums: tuple[Sum, ...]
    holds: tuple[tuple[Hold, Hold | None], ...]
    marks: tuple[str, ...] = ()
    usage: Mapping[UsageKey, Usage] = field(default_factory=dict)
    now: int | None = None


class Engine(Protocol):
    """Rows on a server. Every method may be called from any thread and in a forked child, takes a `deadline`
    (time.monotonic) and raises BudgetStoreUnavailable if the server has not answered by then: the request may have been
    applied or not. Any other failure is a BudgetStoreError that names the server and the remedy.
    """

    name: str
    """The address without secrets."""

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        """Apply steps, of any projects, in their order and in as few round trips as the server allows, up to the first
        that cannot be applied; return how many were. Applied steps survive the end of this process.
        """

    def view(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        """Rows of a project, in one round trip."""

    def transact(
        self,
        project: str,
        subjects: Sequence[Subject],
        holds: Sequence[str],
        now: int | None,
        work: Callable[[Transaction], T],
        deadline: float,
    ) -> T:
        """Return the result of `work`, after writing the transaction's `changes`. No other client changes rows of the
        project between the reads of `work` and the write. If that could not be ensured, `work` may be called again, in
        a new transaction. Rows of `subjects` and `holds` are read in the first round trip.
        """

    def page(
        self, project: str, scope: str, after: str, most: int, now: int | None, deadline: float
    ) -> tuple[View, list[str]]:
        """Up to `most` ids in a scope that have accounts and follow `after`, in order of their code points, with their rows."""

    def usage_rows(
        self, project: str, scope: str, subject: str | None, since: int, until: int, deadline: float
    ) -> list[tuple[UsageKey, Usage]]:
        """Totals in the order of their keys."""

    def forget(self, project: str, before: int, deadline: float) -> int:
        """Delete marks that were closed before a time, in steps that delay no other client; return how many."""

    def fold(self, project: str, before_day: int, deadline: float) -> int:
        """Add the totals of days from 1 to before `before_day` to day 0, in such steps, too; return how many rows were folded."""

    def projects(self, deadline: float) -> list[str]:
        """See `Store.projects`."""

    def export(self, project: str, after: str, most: int, deadline: float) -> Page:
        """See `Store.export`."""

    def load(self, project: str, rows: Rows, deadline: float) -> None:
        """See `Store.load`. The versions of all subjects in `rows` change."""

    def close(self) -> None:
        """Close the connections. May be called twice."""
