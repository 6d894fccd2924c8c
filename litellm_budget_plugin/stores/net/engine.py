"""What a server does for the ledger: it keeps rows, and knows no rules.

There are two ways to change rows. `transact` runs the rules of core/ over rows while nobody else of the project changes any: two
round trips. `add` changes sums that a client has worked out from rows it saw before: one round trip. The server checks that
the client was right about everything that the rules depend on, and changes nothing if it was not.

Each subject has a version. It changes when an account of the subject is made, deleted, or changed in anything but its sums
(`spent`, `held`, `models`), and never when sums alone change.
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
    """A subject's accounts, in any order, and the version that they had. Versions are random numbers from 1 to 2^52; a subject without accounts has 0."""

    version: int
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Rows as they were at one moment, `now` (microseconds, the server's clock or a test's). Nothing is locked.

    `due`: an open hold of the project has come to its time limit.
    """

    now: int
    due: bool
    subjects: Mapping[Subject, Seen]
    holds: Mapping[str, Hold | None]


class Sum(NamedTuple):
    """What is added to one account: `spent` (also to its breakdown, under `model`) and `held`; either may be negative.

    Afterwards spent + held must not exceed `most` (None: no limit). Where `known` is given, (spent, held) must be exactly that
    before.
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

    Applied if all of this is so when it comes: `since` <= now < `until` (the day that totals go to, the ends of windows and
    of raises); each of `subjects` has that version; each of `sums` keeps its bounds; each of `holds`, which are pairs of what a hold
    becomes and of what it is expected to be, is so: None, nothing is recorded under its id; else it is open, and has the amounts and
    the legs of what is expected (a budget with another window takes its open holds over).

    Then the sums are added; the holds are stored, the `at` of a new one counted from now (the time limit in microseconds) and that of
    a mark being now, while one that stays open keeps its time limit; each of `marks` is stored as a mark of state "alias", at now;
    `usage` is added to the totals. What is not listed does not change. `sums` stand in the order of their refs, and each one's
    subject is among `subjects`.

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
    """Rows on a server. Every method may be called from any thread and in a forked child, takes a `deadline` (time.monotonic)
    and raises BudgetStoreUnavailable if the server has not answered by then: what was asked may have been done or not. Any
    other failure is a BudgetStoreError that names the server and the way out.
    """

    name: str
    """The address without secrets."""

    def add(self, adds: Sequence[Add], deadline: float) -> int:
        """Apply steps, of any projects, in their order and in as few round trips as the server allows, up to the first that
        cannot be applied; returns how many were. What has been applied survives the end of this process.
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
        """What `work` returns, having written what it left in the transaction's `changes`. Nobody else changes rows of the
        project between what `work` reads and what is written. It may be called again, in a transaction of its own, if that
        could not be kept up. Rows of `subjects` and `holds` are read in the first round trip.
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
        """Delete marks that were closed before a time; returns how many. In steps that hold up nobody."""

    def fold(self, project: str, before_day: int, deadline: float) -> int:
        """Add the totals of days from 1 to before `before_day` to day 0; returns how many rows went. In such steps, too."""

    def projects(self, deadline: float) -> list[str]:
        """See `Store.projects`."""

    def export(self, project: str, after: str, most: int, deadline: float) -> Page:
        """See `Store.export`."""

    def load(self, project: str, rows: Rows, deadline: float) -> None:
        """See `Store.load`. The versions of all subjects in `rows` change."""

    def close(self) -> None:
        """Let go of the connections. May be called twice."""
