"""The ledger's commands and their replies: the whole language between the callback, the manager and a store.

Money is integer nano-dollars, time integer microseconds. Every command names its project. Every command that changes
something carries an id of its own (`hold` or `id`); repeated, it changes nothing more. Commands may also arrive late
or in another order: a `Settle` or `Release` whose `Reserve` has not been seen leaves a mark that refuses it later.

`now` is honoured only by a store that was opened with a test clock; every other store uses its own clock.

A store answers `RollNeeded`, and has changed nothing, when a window that the command touches is new or over. The
caller computes the bounds (stores do no calendar arithmetic) and repeats the command with `rolls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union

from litellm_budget_plugin.core.accounts import CLAIMS, NOTHING, Amounts, Default, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.sentences import Limit

MICROS = 1_000_000
HEADROOM = 64
"""A `cheap` Reserve is granted only where the room is at least this many times what it wants."""


ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class BaseCommand(Generic[ReplyT_co]):
    """A command with the type of its reply: `ask(store, Read(...))` is an `Accounts`, without a check."""

    __slots__ = ()


class Keep(Enum):
    """Means "leave unchanged" in `PutBudget`."""

    KEEP = "keep"


KEEP = Keep.KEEP


class Roll(NamedTuple):
    """Open a window: applied only if the account's recorded end still is `old_end` (None: the account is new, and begins with
    `spent`, by model, in its unit).
    """

    ref: Ref
    old_end: int | None
    start: int
    end: int | None
    spent: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reserve(BaseCommand["ReserveReply"]):
    """Hold money for one attempt, on every account that applies, in one atomic step.

    Grants min(want, room) in USD if that is at least `at_least` (default: all of it); calls and tokens are granted whole.
    An account in whose unit nothing is wanted never refuses. `models` are the model's names and families; the first
    is what a floor is charged under. The hold expires after `expires_after` microseconds unless renewed, and is then
    charged `floor`. `replaces` swaps another hold for this one; a refusal leaves that one as it was. `cheap` says
    that `want` is a loose bound: see HEADROOM.
    `patient` says that the caller will ask again if only held money is in the way; such a refusal is not recorded.
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
    """Charge what an attempt cost, exactly once, and take its hold off. Suffices alone.

    `model` is the name that the response gives. `at` (for charges delivered late) decides the day in the totals only.
    Each of `aliases` becomes a mark; if a mark named `unless` exists, nothing is charged and the hold is released.
    The charge of a hold that the store has not seen comes out of the open hold `parent`, as far as that goes. After a
    `Release`, a `Settle` still charges; after an expiry, it replaces the floor. A charge always goes to the window that is
    open now; what an earlier one paid as floor is not charged again.
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

    A `limit` (None: explicitly unlimited) pins the account; everything else follows only if given. `only` makes it the
    subject's one budget for (model, unit): a budget with another window becomes this one, with its spend and its holds.
    `window` KEEP is the window of the budget there is, else of the default. `bounds` (start, end) moves the open window;
    `spent` replaces what was spent, by model; both exist for imports and for hand-made corrections.
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
    """Forget a subject's budgets and what was spent on them; totals stay. Money held stays held until its calls end.

    `model`, `window` None: all of them. With `seen`, only if the subject's accounts still are as a `Read` without defaults has
    shown them: what has changed since is in use.
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
    """Set what was spent in the open windows to zero; holds and totals stay."""

    id: str
    project: str
    subject: Subject
    model: str | None = None
    window: str | None = None
    now: int | None = None


@dataclass(frozen=True, slots=True)
class SetLimits(BaseCommand["Done | RollNeeded"]):
    """Make `limits` the whole of a subject's limits set by hand: no default applies to it any more. None: forget what was set by
    hand, and the defaults apply again. What was spent stays where a window goes on. A balance is not touched.
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
    """Add to a subject's balance, once and for all for each `id` of a project."""

    id: str
    project: str
    subject: Subject
    amount: int
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Refund(BaseCommand["Done"]):
    """Take back the whole of a top-up, once; the balance may become less than nothing."""

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
    """No money was held. `account` is the one that stood in the way; where several did, one that waiting cannot help.

    `reason`: "blocked", "spent" (what is spent leaves no room), "held" (only money held for calls in flight stands in the
    way). Amounts are in the account's unit. `limit` is what counts now; `raised` and `carried` are the parts of it that a temporary
    raise and the window before add.
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
    """The hold was settled, released or has expired before: nothing was held now."""

    hold: str


@dataclass(frozen=True, slots=True)
class CountExactly:
    """The room is less than HEADROOM times a `cheap` bound: nothing was held, ask again with an exact one."""

    hold: str


class RollDue(NamedTuple):
    """An account whose window has ended (`start` and `end` say which), or that does not exist yet (both None)."""

    ref: Ref
    start: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class RollNeeded:
    """Nothing was held or charged. Repeat the command with a `Roll` for every one of `due`; `now` is the store's clock. Without
    any in `due`: many holds had to be expired first, and more may have to; ask again.
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

    `own_limit` counts only if `pinned`; `limit` is what counts now (default, carried over and raise included).
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
    """Accounts in the order of their keys. `after` is the last subject of a full page, to go on from; None at the end."""

    now: int
    accounts: tuple[AccountState, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class UsageRows:
    """Totals in the order of their keys."""

    rows: tuple[tuple[UsageKey, Usage], ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did."""

    expired: int
    forgotten: int
    folded: int


def is_claim(command: BaseCommand[Any]) -> bool:
    """Whether a command claims an alert, and is about no call."""
    return isinstance(command, (Reserve, Settle)) and any(subject.scope == CLAIMS for subject in command.subjects)


ReserveReply = Union[Granted, Refused, Closed, CountExactly, RollNeeded]
Change = Union[Reserve, Settle, Release, Renew, PutBudget, DropBudget, Reset, SetLimits, TopUp, Refund]
Command = Union[Change, Read, ReadUsage, Sweep]
Reply = Union[ReserveReply, Settled, AlreadyCharged, Released, Renewed, Done, Accounts, UsageRows, Swept]
