"""The ledger's commands and their replies: the whole language between the callback, the manager and a store.

Money is integer nano-dollars, time integer microseconds. Every command names its project. Every command that changes
something carries an id of its own (`hold` or `id`); a repeated command changes nothing more. Commands may also arrive late or
in another order: a `Settle` or `Release` whose `Reserve` has not been seen leaves a mark that refuses this `Reserve` later.

`now` is honoured only by a store that was opened with a test clock; every other store uses its own clock.

A store answers `RollNeeded`, and has changed nothing, when a window that the command touches is new or has ended. The caller
computes the bounds (stores do no calendar arithmetic) and repeats the command with `rolls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union

from litellm_budget_plugin.core.accounts import CLAIMS, NOTHING, Amounts, Default, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.sentences import Limit

MICROS = 1_000_000
HEADROOM = 64
"""A `cheap` Reserve is granted only if the room is at least this many times the amount wanted."""


ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class BaseCommand(Generic[ReplyT_co]):
    """A command with the type of its reply: `ask(store, Read(...))` is an `Accounts`, without a check."""

    __slots__ = ()


class Keep(Enum):
    """Means "leave unchanged" in `PutBudget`."""

    KEEP = "keep"


KEEP = Keep.KEEP


class Roll(NamedTuple):
    """Open a window. It is applied only if the account's recorded end is still `old_end` (None: the account is new, and
    begins with `spent`, by model, in its unit).
    """

    ref: Ref
    old_end: int | None
    start: int
    end: int | None
    spent: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reserve(BaseCommand["ReserveReply"]):
    """Hold money for one attempt, on every account that applies, in one atomic step.

    Grants min(want, room) in USD if that is at least `at_least` (default: all of it); calls and tokens are granted whole. An
    account never refuses if nothing is wanted in its unit. `models` are the model's names and families; a floor is charged under
    the first. The hold expires after `expires_after` microseconds unless renewed, and is then charged `floor`. `replaces` swaps
    another hold for this one; a refusal leaves that one unchanged. `cheap` says that `want` is a loose upper bound: see HEADROOM.
    `patient` says that the caller will ask again if only held money prevents the grant; such a refusal is not recorded.
    """

    hold: str
    project: str
    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    want: Amounts
    expires_after: int
    defaults: tuple[Default, ...] = ()
    floor: Amounts = NOTHING
    at_least: int | None = None
    replaces: str | None = None
    cheap: bool = False
    patient: bool = False
    rolls: tuple[Roll, ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Settle(BaseCommand["Settled | AlreadyCharged | RollNeeded"]):
    """Charge the cost of an attempt, exactly once, and take its hold off. No Reserve is needed before it.

    `model` is the name that the response gives. `at` (for charges delivered late) decides only the day in the totals. Each of `aliases`
    becomes a mark; if a mark named `unless` exists, nothing is charged and the hold is released. If the store has not seen the hold,
    the charge reduces the open hold `parent`, at most to zero. After a `Release`, a `Settle` still charges; after an expiry, it
    replaces the floor. A charge always goes to the window that is open now; a floor that an earlier window paid is not charged again.
    """

    hold: str
    project: str
    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    cost: int
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 1
    defaults: tuple[Default, ...] = ()
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    unless: str | None = None
    at: int | None = None
    rolls: tuple[Roll, ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Release(BaseCommand["Released"]):
    """Give a hold back: nothing was spent. After a `Settle` it changes nothing."""

    hold: str
    project: str
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Renew(BaseCommand["Renewed"]):
    """Move the time limit of open holds to `expires_after` microseconds from now, never to an earlier time."""

    holds: tuple[str, ...]
    project: str
    expires_after: int
    now: int | None = None


@dataclass(frozen=True, slots=True)
class PutBudget(BaseCommand["Done | RollNeeded"]):
    """Create or change a subject's budget.

    A `limit` (None: explicitly unlimited) pins the account; every other field counts only if given. `only` makes it the
    subject's one budget for (model, unit): a budget with another window becomes this one, with its spend and its holds.
    `window` KEEP is the window of the existing budget, else that of the default, else "none". `bounds` (start, end)
    moves the open window; `spent` replaces the spend, by model; both exist for imports and for corrections by hand.
    """

    id: str
    project: str
    subject: Subject
    model: str = ""
    unit: str = "usd"
    window: str | Keep = KEEP
    limit: int | Keep | None = KEEP
    blocked: bool | Keep = KEEP
    raised_by: int | Keep = KEEP
    raised_until: int | Keep = KEEP
    carry_over: int | Keep = KEEP
    created_at: int | Keep = KEEP
    bounds: tuple[int, int | None] | Keep = KEEP
    spent: tuple[tuple[str, int], ...] | Keep = KEEP
    only: bool = False
    defaults: tuple[Default, ...] = ()
    rolls: tuple[Roll, ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True)
class DropBudget(BaseCommand["Done"]):
    """Forget a subject's budgets and their spend; totals stay. Money held stays held until its calls end.

    `model` None: every model. `window` None: every window but that of a balance. With `seen`, only if the subject's
    accounts are still as a `Read` without defaults showed them: accounts that have changed since are in use.
    """

    id: str
    project: str
    subject: Subject
    model: str | None = None
    window: str | None = None
    seen: tuple[AccountState, ...] | Keep = KEEP
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Reset(BaseCommand["Done"]):
    """Set the spend of the open windows to zero; holds and totals stay. `model` and `window` None: as in `DropBudget`."""

    id: str
    project: str
    subject: Subject
    model: str | None = None
    window: str | None = None
    now: int | None = None


@dataclass(frozen=True, slots=True)
class SetLimits(BaseCommand["Done | RollNeeded"]):
    """Replace all of a subject's limits set by hand by `limits`: no default applies to it any more. None: forget the
    limits set by hand, and the defaults apply again. The spend stays where a window continues. A balance is not touched.
    """

    id: str
    project: str
    subject: Subject
    limits: tuple[Limit, ...] | None
    defaults: tuple[Default, ...] = ()
    rolls: tuple[Roll, ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True)
class TopUp(BaseCommand["Done"]):
    """Add `amount` to a subject's balance, once for each `id` of a project."""

    id: str
    project: str
    subject: Subject
    amount: int
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Refund(BaseCommand["Done"]):
    """Take back a whole top-up, once; the balance may become negative."""

    id: str
    project: str
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Read(BaseCommand["Accounts"]):
    """The accounts of one subject, or a page of a scope's subjects in the order of their ids."""

    project: str
    scope: str
    subject: str | None = None
    after: str = ""
    page: int = 1000
    defaults: tuple[Default, ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True)
class ReadUsage(BaseCommand["UsageRows"]):
    """Totals by subject, UTC day and model; `since` and `until` are days, both included."""

    project: str
    scope: str
    subject: str | None = None
    since: int = 0
    until: int = 2**31
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Sweep(BaseCommand["Swept"]):
    """Expire every hold that is due, forget marks older than `marks_kept` and fold days older than `days_kept`
    (microseconds, both) into day 0. The guarantees do not depend on it.
    """

    project: str
    marks_kept: int
    days_kept: int
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The hold is in place."""

    hold: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Refused:
    """No money was held. `account` is the account that refused; if several did, one that waiting cannot help.

    `reason`: "blocked", "spent" (the spend leaves no room), "held" (only money held for calls in flight leaves no
    room). Amounts are in the account's unit. `limit` is the limit that counts now; `raised` and `carried` are the parts
    of it that a temporary raise and the previous window add.
    """

    hold: str
    account: Ref
    reason: Literal["blocked", "spent", "held"]
    limit: int
    spent: int
    held: int
    requested: int
    resets_at: int | None
    raised: int = 0
    carried: int = 0


@dataclass(frozen=True, slots=True)
class Closed:
    """The hold was already settled, released or expired: nothing was held now."""

    hold: str


@dataclass(frozen=True, slots=True)
class CountExactly:
    """The room is less than HEADROOM times a `cheap` bound: nothing was held, ask again with an exact amount."""

    hold: str


class RollDue(NamedTuple):
    """An account whose window has ended (`start` and `end` say which), or that does not exist yet (both None)."""

    ref: Ref
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class RollNeeded:
    """Nothing was held or charged. Repeat the command with a `Roll` for each of `due`; `now` is the store's clock. If
    `due` is empty, many holds had to be expired first, and more may remain: repeat the command as it is.
    """

    now: int
    due: tuple[RollDue, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The charge is in the ledger."""

    hold: str


@dataclass(frozen=True, slots=True)
class AlreadyCharged:
    """The mark named by `unless` exists: nothing was charged."""

    hold: str


@dataclass(frozen=True, slots=True)
class Released:
    """The hold is not open (any more)."""

    hold: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """`missing` are the holds that were not open."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The change is in the ledger."""

    id: str


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account as it stands now: an ended window is presented as empty, with `ended` set.

    `own_limit` counts only if `pinned`; `limit` is the limit that counts now, with default, carry-over and raise.
    """

    ref: Ref
    pinned: bool
    own_limit: int | None
    limit: int | None
    spent: int
    held: int
    start: int
    end: int | None
    ended: bool
    blocked: bool
    raised_by: int
    raised_until: int
    carry_over: int
    carried: int
    created_at: int
    epoch: int
    models: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts in the order of their keys. `after` is the last subject of a full page, from which to continue; None at the end."""

    now: int
    accounts: tuple[AccountState, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class UsageRows:
    """Totals in the order of their keys."""

    rows: tuple[tuple[UsageKey, Usage], ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """The numbers of holds expired, marks forgotten and rows of totals folded by a sweep."""

    expired: int
    forgotten: int
    folded: int


def is_claim(command: BaseCommand[Any]) -> bool:
    """Whether a command claims an alert. Such a command is not about a call."""
    return isinstance(command, (Reserve, Settle)) and any(subject.scope == CLAIMS for subject in command.subjects)


ReserveReply = Union[Granted, Refused, Closed, CountExactly, RollNeeded]
Change = Union[Reserve, Settle, Release, Renew, PutBudget, DropBudget, Reset, SetLimits, TopUp, Refund]
Command = Union[Change, Read, ReadUsage, Sweep]
Reply = Union[ReserveReply, Settled, AlreadyCharged, Released, Renewed, Done, Accounts, UsageRows, Swept]
