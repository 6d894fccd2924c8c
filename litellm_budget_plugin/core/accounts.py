"""The rows of the ledger: accounts, holds and usage, and the keys that name them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import NamedTuple

from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.core.windows import DAY

UNITS = ("usd", "calls", "tokens")
SCOPES = ("user", "team", "tag", "run", "project")
"""The scopes whose subjects can have a budget."""
CLAIMS = "alert"
"""The scope of the claims that a process makes before it sends an alert. It has no budgets and no totals, and callers cannot name it."""
ESTIMATED = "estimated"
"""The scope that keeps, under a project's name, the totals of charges that were estimated. It has no budgets and is not part of sums."""


class Subject(NamedTuple):
    """The owner of an account: a scope ("user", "project", ...) and an id in it."""

    scope: str
    id: str


class Ref(NamedTuple):
    """The key of an account inside a project. `model` is "" for any model, else a model in the form of `core.models.covers`."""

    scope: str
    subject: str
    model: str = ""
    window: str = "none"
    unit: str = "usd"


class Amounts(NamedTuple):
    """One amount in each unit: nano-dollars, calls, tokens. The fields are in the order of UNITS."""

    usd: int = 0
    calls: int = 0
    tokens: int = 0

    def of(self, unit: str) -> int:
        """The amount in `unit`."""
        return self[UNITS.index(unit)]

    def plus(self, other: Amounts) -> Amounts:
        """The sum, unit by unit."""
        return Amounts(self[0] + other[0], self[1] + other[1], self[2] + other[2])

    def minus(self, other: Amounts) -> Amounts:
        """The difference, unit by unit; the caller guarantees that it is not negative."""
        return Amounts(self[0] - other[0], self[1] - other[1], self[2] - other[2])

    def at_most(self, other: Amounts) -> Amounts:
        """The smaller of the two, unit by unit."""
        return Amounts(min(self[0], other[0]), min(self[1], other[1]), min(self[2], other[2]))


NOTHING = Amounts()


class Default(NamedTuple):
    """The limit of accounts without a limit of their own. `limit` None: spend is recorded and never refused.

    `carry_over` is the largest unused rest that is added to the next window. `subject` is the one subject that the
    default is for; a default without one is for every subject of the scope that no other default names.
    """

    scope: str
    window: str = "none"
    limit: int | None = None
    model: str = ""
    unit: str = "usd"
    carry_over: int = 0
    subject: str = ""


@dataclass(slots=True)
class Account:
    """One budget: the spend of its open window, the money held on it, and its own limit if it has one (`pinned`).

    `id` is unique among all rows that ever existed, and `epoch` grows with every roll and reset: together they tell a correction whether
    the window that it corrects is still open. `models` breaks `spent` down and always sums to it. `dropped` rows are deleted once nothing
    is held on them. `alerted` and `alert_limit` are alert fields of earlier versions, which may run beside this one and read both.
    """

    ref: Ref
    id: str
    created_at: int
    start: int
    end: int | None
    pinned: bool = False
    limit: int | None = None
    spent: int = 0
    held: int = 0
    epoch: int = 0
    blocked: bool = False
    raised_by: int = 0
    raised_until: int = 0
    carry_over: int = 0
    carried: int = 0
    dropped: bool = False
    alerted: int = 0
    alert_limit: int = 0
    models: dict[str, int] = field(default_factory=dict)

    @property
    def soonest(self) -> int:
        """The earliest time (microseconds) at which the recorded window counts. A clock that jumped ahead for a moment
        may have opened a window far in the future. A clock that was set back a little has not left the open window.
        """
        return self.start if self.end is None else self.start - min(DAY, self.end - self.start)

    def over(self, now: int) -> bool:
        """Whether the recorded window has ended or lies in the future."""
        return self.end is not None and (self.end <= now or now < self.soonest)

    def own_limit(self, default: Default | None) -> int | None:
        """The limit without carry-over and raise; None if there is none."""
        return self.limit if self.pinned else (default.limit if default else None)

    def effective_limit(self, default: Default | None, now: int) -> int | None:
        """The limit that counts now: own or default, plus the carry-over, plus a raise in force."""
        limit = self.own_limit(default)
        if limit is None:
            return None
        return min(limit + self.carried + (self.raised_by if now < self.raised_until else 0), MAX_NANOS)

    def added_to_limit(self, default: Default | None, now: int) -> tuple[int, int]:
        """The amounts that a raise in force and the carry-over add to the limit that counts now."""
        own, limit = self.own_limit(default), self.effective_limit(default, now)
        if own is None or limit is None:
            return 0, 0
        carried = min(self.carried, limit - own)
        return limit - own - carried, carried

    def charge(self, amount: int, model: str) -> None:
        """Add `amount` (negative: a correction) to the spend, under `model`."""
        if not amount:
            return
        self.spent += amount
        rest = self.models.get(model, 0) + amount
        if rest:
            self.models[model] = rest
        else:
            self.models.pop(model, None)

    def begin_window(self, start: int, end: int | None, default: Default | None) -> None:
        """Start an empty window. Holds stay; an unused rest is carried over, up to the cap."""
        if start >= self.start:
            self._carry_over(start, default)
        self.start, self.end = start, end
        self.clear()

    def _carry_over(self, start: int, default: Default | None) -> None:
        limit = self.own_limit(default)
        cap = self.carry_over if self.pinned or not default else default.carry_over
        self.carried = 0 if limit is None else min(cap, max(0, limit + self.carried - self.spent))
        if limit is not None and self.end is not None and start > self.end:
            # Nothing was spent in the windows in between.
            self.carried = min(cap, limit + self.carried)

    def clear(self) -> None:
        """Forget the spend of the open window."""
        self.spent = 0
        self.models = {}
        self.alerted = 0
        self.epoch += 1

    def copy(self) -> Account:
        """A copy that shares nothing."""
        same = Account(*_account_values(self))
        same.models = dict(self.models)
        return same


# Several times as fast as `dataclasses.replace`, and every command copies rows.
_account_values = attrgetter(*(each.name for each in fields(Account)))


class Charged(NamedTuple):
    """A row, and the window in it that was charged the floor of an expired hold."""

    subject: Subject
    id: str
    epoch: int


def command_mark(command: str) -> str:
    """The id of the mark that a command with this id leaves; never equal to a hold's."""
    return f"command:{command}"


def alias_mark(alias: str) -> str:
    """The id of the mark that an alias leaves; never equal to a hold's."""
    return f"alias:{alias}"


def top_up_mark(top_up: str) -> str:
    """The id of the mark that a top-up leaves; never equal to a hold's."""
    return f"top-up:{top_up}"


@dataclass(slots=True)
class Hold:
    """Money held for one attempt, or, once closed, the mark that keeps a late or repeated command from counting twice.

    `state` is "open", "settled", "released", "expired" or "refused". "done" marks the id of a command or top-up, and
    "alias" marks another name of a charge, under the ids that `command_mark`, `top_up_mark` and `alias_mark` give them.
    `at` is the time limit while open, and the time of closing afterwards. `charged` (of an expired hold) names the rows
    and windows that were charged the floor, on `day`. `reply` is the reply to a repeated command, as encoded by
    core.wire; a "done" mark keeps the top-up itself, or a digest of the command, instead.
    """

    id: str
    state: str
    at: int
    amounts: Amounts = NOTHING
    floor: Amounts = NOTHING
    model: str = ""
    subjects: tuple[Subject, ...] = ()
    legs: tuple[Ref, ...] = ()
    charged: tuple[Charged, ...] = ()
    day: int = 0
    reply: str = ""

    @property
    def plain(self) -> bool:
        """Whether only its id, state, time and reply are set."""
        said = self.legs or self.subjects or self.charged or self.model or self.day
        return not said and self.amounts == NOTHING == self.floor

    def copy(self) -> Hold:
        """A copy; every field is immutable."""
        return Hold(*_hold_values(self))


_hold_values = attrgetter(*(each.name for each in fields(Hold)))


class UsageKey(NamedTuple):
    """The key of a row of totals: one subject, one UTC day (days since 1970-01-01; 0 is the sum of folded days), one model."""

    scope: str
    subject: str
    day: int
    model: str


class Usage(NamedTuple):
    """Totals, or the amounts that one command adds to them. `spent` is nano-dollars; `unsettled` counts holds charged their floor."""

    spent: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    refusals: int = 0
    unsettled: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum, field by field."""
        return Usage(*map(int.__add__, self, other))
