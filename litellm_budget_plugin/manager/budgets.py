"""Budgets of users, teams, tags, runs and the project, as sentences, with exact amounts."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from litellm_budget_plugin.core.accounts import SCOPES, Default, Ref, Subject, Usage, UsageKey
from litellm_budget_plugin.core.applying import defaults_for, limits_on
from litellm_budget_plugin.core.budgets import history_scope
from litellm_budget_plugin.core.commands import (
    MICROS,
    Accounts,
    AccountState,
    BaseCommand,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Refund,
    ReplyT_co,
    Reset,
    SetLimits,
    TopUp,
)
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import Limit, parse_limit, parse_limits
from litellm_budget_plugin.core.windows import CREDIT, DAY, bounds, parse_window
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.forecasts import Forecast, as_forecast, first_day, first_run_out
from litellm_budget_plugin.pricing import unknown_models
from litellm_budget_plugin.stores.protocol import spent_since

PERIODS = ("day", "model", *SCOPES)
"""The keys by which `usage` can sum totals."""
_logger = logging.getLogger("litellm_budget_plugin")
_EPOCH = date(1970, 1, 1).toordinal()


class Remaining(NamedTuple):
    """The amounts that a subject may still spend. Money held for calls in flight counts as spent.

    `usd` is the rest of the budget with the least left, `budget` is that budget's sentence, and `resets_at` is the end of its window.
    They are None without a limit in US dollars, or without an end. `held` is the money that calls in flight hold on it, in US dollars.
    `calls` and `tokens` are the rest of the limits in those units.
    """

    usd: Decimal | None = None
    budget: str | None = None
    resets_at: datetime | None = None
    held: Decimal = Decimal(0)
    calls: int | None = None
    tokens: int | None = None
    blocked: bool = False


class UsageRow(NamedTuple):
    """The totals of the day, model or subject that `key` names. `spent` is in US dollars."""

    key: str
    spent: Decimal
    calls: int
    input_tokens: int
    output_tokens: int
    refusals: int
    unsettled: int


class UsageTotals(NamedTuple):
    """A `UsageRow` without its key."""

    spent: Decimal
    calls: int
    input_tokens: int
    output_tokens: int
    refusals: int
    unsettled: int


class RunState(NamedTuple):
    """A run that the ledger knows. Amounts are in US dollars; `remaining` is None without a limit."""

    id: str
    spent: Decimal
    held: Decimal
    remaining: Decimal | None
    limits: list[str]
    blocked: bool
    created_at: datetime


class Payment(NamedTuple):
    """A top-up. `id` is the payment's id; `amount` is in US dollars."""

    id: str
    amount: Decimal
    at: datetime
    refunded: bool


def parse_subject(text: str | int) -> Subject:
    """Return the subject that a text names: "team:search", "tag:batch", "run:42", "user:alice", or "alice" for a user.

    A user whose id looks like one of these is written with "user:" in front. Raises BudgetInputError for an invalid id.
    """
    scope, colon, rest = str(text).partition(":")
    if colon and scope in SCOPES:
        return Subject(scope, checked_id(rest, scope))
    near = difflib.get_close_matches(scope.strip().casefold(), (*SCOPES, "class"), 1, 0.7) if colon else []
    if near:
        raise BudgetInputError(
            f"{text!r:.80} has an unknown scope; accepted are {', '.join(SCOPES)}, and a user of that id is 'user:{text}'"
        )
    return Subject("user", checked_id(text, "subject"))


class ProjectLedger(Protocol):
    """The interface of one project's ledger that `Budgets` uses. `timezone` applies to calendar windows that name no zone."""

    @property
    def project(self) -> str:
        """The project's name."""

    @property
    def timezone(self) -> str:
        """The IANA name of a time zone."""

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Return the ledger's reply. Raises BudgetInputError, and BudgetStoreError if the ledger does not answer."""

    def ask_settled(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Like `ask`, but first deliver the charges of this process."""

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        """Return the limits that are set outside the ledger: those of whole scopes, and those of these subjects."""

    def new_id(self) -> str:
        """Return a new id for a command."""


class Budgets:
    """Methods to read and change the budgets of one project's ledger. Every method asks the ledger; nothing is cached. Threads may share it.

    A subject is "alice" or "user:alice", "team:search", "tag:batch", "run:42", "project" for all users together, or a `Subject` of a
    scope and an id. Amounts are exact US dollars (`Decimal`). Methods raise BudgetInputError for an argument that cannot be read, and
    BudgetStoreError if the ledger does not answer.
    """

    def __init__(self, ledger: ProjectLedger) -> None:
        self._ledger = ledger

    def set_limits(self, subject: str | Subject, *sentences: str) -> list[str]:
        """Replace all limits of the subject by these, in one step. They also replace those of the environment and the file. Returns the
        limits as the ledger has them. Spend in a window that continues still counts, and a new calendar window begins with the amount
        that was spent in it before.
        """
        limits = parse_limits(sentences, self._ledger.timezone)
        if not limits:
            raise BudgetInputError(
                "set_limits needs at least one sentence, such as 'unlimited'; clear_limits forgets what was set"
            )
        self._set(self._subject(subject), limits)
        # Importing LiteLLM takes seconds, and a process that only manages budgets does not need its list of models.
        if "litellm" in sys.modules and (unknown := unknown_models(limit.model for limit in limits if limit.model)):
            _logger.warning("some limits may have no effect: %s", "; ".join(unknown))
        return [limit.sentence(self._ledger.timezone) for limit in limits]

    def clear_limits(self, subject: str | Subject) -> None:
        """Remove the limits that were set by hand. Those of the environment and the file count again."""
        self._set(self._subject(subject), None)

    def _set(self, subject: Subject, limits: tuple[Limit, ...] | None) -> None:
        ledger = self._ledger
        ledger.ask(SetLimits(ledger.new_id(), ledger.project, subject, limits, ledger.defaults_of(subject)))

    def limits(self, subject: str | Subject) -> list[str]:
        """Return the sentences of all limits that count for a subject, wherever they are set."""
        named = self._subject(subject)
        return [limit.sentence(self._ledger.timezone) for limit in self._limits(named, self._states(named))]

    def remaining(self, subject: str | Subject, model: str | None = None) -> Remaining:
        """Return what the subject may still spend on `model`; without `model`, on models without their own budget."""
        named = self._subject(subject)
        models: tuple[str, ...] = ()
        if model is not None:
            # Imported only here, because it needs LiteLLM, which takes seconds to import.
            from litellm_budget_plugin import pricing

            models = pricing.model_names(pricing.Request("completion", model, None, {}))
        found, read = Remaining(), self._read(named)
        for ref, limit, state in limits_on(named, read.accounts, models, self._ledger.defaults_of(named)):
            if state is not None and state.blocked:
                found = found._replace(blocked=True)
            if limit is None:
                continue
            used = state.spent + state.held if state is not None else self._spent_before(named, ref, read.now)
            left = max(0, limit - used)
            if ref.unit != "usd":
                least = getattr(found, ref.unit)
                changed: dict[str, Any] = {ref.unit: left if least is None else min(least, left)}
                found = found._replace(**changed)
            elif found.usd is None or _usd(left) < found.usd:
                own = limit if state is None or not state.pinned else state.own_limit
                held = _usd(state.held) if state is not None else Decimal(0)
                said = _limit_of(ref, own).sentence(self._ledger.timezone)
                found = found._replace(usd=_usd(left), budget=said, resets_at=_end(ref, state, read.now), held=held)
        return found

    def _spent_before(self, subject: Subject, ref: Ref, now: int) -> int:
        """Return the spend with which a calendar window that is not open yet will begin."""
        window = parse_window(ref.window)
        if not window.period:
            return 0
        since = -(-bounds(window, now)[0] // DAY)
        return sum(spent for _, spent in spent_since(self._totals(*subject, (since, 2**31)), ref, since))

    def forecast(self, subject: str | Subject) -> Forecast | None:
        """Return which of the subject's budgets runs out first, and when, at the rate of the last four weeks. None if all of them last
        until their windows end, or if there are less than three days of history.
        """
        named = self._subject(subject)
        defaults = self._ledger.defaults_of(named)
        found = self._ledger.ask_settled(Read(self._ledger.project, *named, defaults=defaults))
        rows = self._totals(*named, (first_day(found.now), 2**31))
        return as_forecast(first_run_out(named, found.accounts, defaults, rows, found.now), self._ledger.timezone)

    def block(self, subject: str | Subject) -> None:
        """Refuse every call of a subject from now on, in every process. This stops a run."""
        self._put(self._subject(subject), blocked=True)

    def unblock(self, subject: str | Subject) -> None:
        """Allow the calls of a blocked subject again."""
        named = self._subject(subject)
        for state in self._states(named):
            if state.blocked:
                self._put(named, state.ref, blocked=False)

    def raise_limit(self, subject: str | Subject, amount: str | Decimal | int, *, until: datetime) -> None:
        """Raise each of a subject's limits in US dollars for any model by `amount` ("$5", or dollars as a number) until a time. A time
        that has passed ends a raise.
        """
        named, raised = self._subject(subject), _dollars(amount)
        if not isinstance(until, datetime) or until.tzinfo is None:
            raise BudgetInputError(f"until= must be a datetime with a time zone, got {until!r:.80}")
        found = limits_on(named, self._states(named), (), self._ledger.defaults_of(named))
        refs = [ref for ref, limit, _ in found if limit is not None and ref.unit == "usd" and ref.window != CREDIT]
        if not refs:
            raise BudgetInputError(f"{named.scope} {named.id!r:.80} has no limit in US dollars that could be raised")
        for ref in refs:
            self._put(named, ref, raised_by=raised, raised_until=max(0, round(until.timestamp() * MICROS)))

    def reset(self, subject: str | Subject) -> None:
        """Set the spend in the open windows to zero. The totals by day and a balance stay."""
        named = self._subject(subject)
        self._ledger.ask(Reset(self._ledger.new_id(), self._ledger.project, named))

    def forget(self, subject: str | Subject) -> None:
        """Forget a subject's budgets and the spend on them. The totals by day and a balance stay."""
        named = self._subject(subject)
        self._ledger.ask(DropBudget(self._ledger.new_id(), self._ledger.project, named))

    def usage(
        self,
        *,
        since: date | None = None,
        until: date | None = None,
        by: str = "day",
        subject: str | Subject | None = None,
    ) -> list[UsageRow]:
        """Return the totals of the days from `since` to `until` (UTC, both included), of all or of one subject, by "day", "model" or a scope.

        The rows are in the order of their keys. All days before the last 400 are summed into one row, the first, with the key "before".
        """
        found = self.usage_by((by,), since=since, until=until, subject=subject)
        return [UsageRow(key, *totals) for (key,), totals in found]

    def usage_by(
        self,
        by: Sequence[str],
        *,
        since: date | None = None,
        until: date | None = None,
        subject: str | Subject | None = None,
    ) -> list[tuple[tuple[str, ...], UsageTotals]]:
        """Like `usage`, by several keys at once: "day", "model" and at most one scope, in any order. Each row has a key for each of `by`.

        The ledger keeps totals of each subject, not of pairs of subjects: there are none by user and team.
        """
        if not by or len(set(by)) < len(by) or not set(by) <= set(PERIODS):
            raise BudgetInputError(f"by= must be of {', '.join(PERIODS)}, each at most once, got {','.join(by)!r:.80}")
        scopes = [each for each in by if each in SCOPES]
        if len(scopes) > 1:
            raise BudgetInputError(f"there are no totals by {' and '.join(scopes)} at once: give one of them")
        for name, day in (("since", since), ("until", until)):
            if day is not None and not isinstance(day, date):
                raise BudgetInputError(f"{name}= must be a date, got {day!r:.80}")
        days = (
            0 if since is None else since.toordinal() - _EPOCH,
            2**31 if until is None else until.toordinal() - _EPOCH,
        )
        named = self._subject(subject) if subject is not None else None
        if scopes:
            if named is not None and named.scope != scopes[0]:
                raise BudgetInputError(f"a {named.scope} has no totals by {scopes[0]}")
            rows = self._totals(scopes[0], None if named is None else named.id, days)
        else:
            named = named or Subject("project", self._ledger.project)
            rows = self._totals(*named, days)
        keys = [_KEYS.get(each, _subject_of) for each in by]
        return _summed(rows, lambda key: tuple(each(key) for each in keys))

    def runs(self) -> Iterator[RunState]:
        """Yield every run that the ledger knows, in the order of their ids."""
        for subject, states in self._each("run"):
            yield self._run(subject, states)

    def run(self, run: str) -> RunState:
        """Return one run, whether or not the ledger knows it."""
        subject = Subject("run", checked_id(run, "run"))
        return self._run(subject, self._states(subject))

    def subjects(self, scope: str) -> Iterator[str]:
        """Yield every id of a scope that has an account, in order."""
        for subject, _ in self._each(_scope(scope)):
            yield subject.id

    def top_up(self, subject: str | Subject, amount: str | Decimal | int, *, id: str) -> None:  # noqa: A002  # the payment's own word
        """Add to a subject's balance, once for each `id`, such as an invoice number. From then on its calls need room in the balance."""
        paid = _dollars(amount)
        if not paid:
            raise BudgetInputError(f"a top-up must be more than 0, got {amount!r:.80}")
        self._ledger.ask(TopUp(checked_id(id, "id"), self._ledger.project, self._subject(subject), paid))

    def refund(self, id: str) -> None:  # noqa: A002
        """Take back a whole top-up, once. Money that was spent stays spent, so the balance can become negative."""
        self._ledger.ask(Refund(checked_id(id, "id"), self._ledger.project))

    def balance(self, subject: str | Subject) -> Decimal:
        """Return the topped-up money that is left, in US dollars, without the part that calls in flight hold."""
        states = self._states(self._subject(subject))
        found = next((state for state in states if state.ref.window == CREDIT), None)
        return Decimal(0) if found is None else _usd((found.limit or 0) - found.spent - found.held)

    def payments(self, subject: str | Subject) -> list[Payment]:
        """Return the top-ups of a subject, the oldest first."""
        scope, name = self._subject(subject)
        states = self._ledger.ask_settled(Read(self._ledger.project, history_scope(scope), name)).accounts
        paid = [
            Payment(each.ref.model, _usd(each.own_limit or 0), _time(each.created_at) or _NEVER, each.blocked)
            for each in states
        ]
        return sorted(paid, key=lambda payment: (payment.at, payment.id))

    # Queries and commands to the ledger.

    def _subject(self, given: str | Subject) -> Subject:
        found = Subject("project", self._ledger.project) if given == "project" else given
        found = found if isinstance(found, Subject) else parse_subject(found)
        if found.scope == "project" and found.id != self._ledger.project:
            raise BudgetInputError(
                f"this is the project {self._ledger.project!r}, not {found.id!r:.80}: write 'project'"
            )
        return found

    def _put(self, subject: Subject, ref: Ref | None = None, **fields: Any) -> None:
        where: dict[str, Any] = {} if ref is None else {"model": ref.model, "unit": ref.unit, "window": ref.window}
        defaults = self._ledger.defaults_of(subject)
        id_ = self._ledger.new_id()
        self._ledger.ask(PutBudget(id_, self._ledger.project, subject, defaults=defaults, **where, **fields))

    def _states(self, subject: Subject) -> tuple[AccountState, ...]:
        return self._read(subject).accounts

    def _read(self, subject: Subject) -> Accounts:
        return self._ledger.ask_settled(
            Read(self._ledger.project, *subject, defaults=self._ledger.defaults_of(subject))
        )

    def _each(self, scope: str) -> Iterator[tuple[Subject, tuple[AccountState, ...]]]:
        after: str | None = ""
        while after is not None:
            defaults = self._ledger.defaults_of()
            reply = self._ledger.ask_settled(Read(self._ledger.project, scope, after=after, defaults=defaults))
            for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
                subject = Subject(scope, name)
                same = self._ledger.defaults_of(subject) == defaults
                yield subject, tuple(states) if same else self._states(subject)
            after = reply.after

    def _totals(self, scope: str, subject: str | None, days: tuple[int, int]) -> tuple[tuple[UsageKey, Usage], ...]:
        reply = self._ledger.ask_settled(ReadUsage(self._ledger.project, scope, subject, *days))
        return reply.rows

    def _limits(self, subject: Subject, states: tuple[AccountState, ...]) -> list[Limit]:
        """Return the limits that count, as they were set, without raises and amounts carried over."""
        found: list[Limit] = []
        for ref, _, state in limits_on(subject, states, None, defaults := self._ledger.defaults_of(subject)):
            if state is not None and state.pinned:
                limit: int | None = state.own_limit
            else:
                followed = defaults_for(subject, states, defaults).get(ref)
                if followed is None:  # only blocked
                    continue
                limit = followed.limit
            if limit is not None or (state is not None and state.pinned):
                found.append(_limit_of(ref, limit))
        return found

    def _run(self, subject: Subject, states: tuple[AccountState, ...]) -> RunState:
        totals = self._totals(*subject, (0, 2**31))
        spent = sum(usage.spent for _, usage in totals)
        found = limits_on(subject, states, (), self._ledger.defaults_of(subject))
        dollars = [(limit, state) for ref, limit, state in found if ref.unit == "usd"]
        left = [limit - (state.spent + state.held if state else 0) for limit, state in dollars if limit is not None]
        return RunState(
            subject.id,
            _usd(spent),
            _usd(max((state.held for _, state in dollars if state), default=0)),
            _usd(max(0, min(left))) if left else None,
            [limit.sentence(self._ledger.timezone) for limit in self._limits(subject, states)],
            any(state.blocked for state in states),
            _time(min((state.created_at for state in states), default=None)) or _NEVER,
        )


_NEVER = datetime.fromtimestamp(0, tz=timezone.utc)
_KEYS: dict[str, Callable[[UsageKey], str]] = {
    "day": lambda key: "before" if not key.day else date.fromordinal(key.day + _EPOCH).isoformat(),
    "model": lambda key: key.model,
}


def _subject_of(key: UsageKey) -> str:
    return key.subject


def _dollars(amount: str | Decimal | int) -> int:
    """Return an amount of US dollars in nano-dollars, exactly. Raises BudgetInputError."""
    number = isinstance(amount, (Decimal, int)) and not isinstance(amount, bool)
    paid = parse_limit(f"${Decimal(amount):f}" if number else amount)  # type: ignore[arg-type]  # it refuses other types
    if paid.unit != "usd" or paid.amount is None or paid[1:3] != ("none", ""):
        raise BudgetInputError(f"an amount of US dollars must be written like '$10', got {amount!r:.80}")
    return paid.amount


def _scope(scope: str) -> str:
    if scope not in SCOPES:
        raise BudgetInputError(f"a scope must be one of {', '.join(SCOPES)}, got {scope!r:.80}")
    return scope


def _limit_of(ref: Ref, amount: int | None) -> Limit:
    return Limit(amount, ref.window, ref.model, ref.unit)


def _end(ref: Ref, state: AccountState | None, now: int) -> datetime | None:
    """Return when an account's window ends. If no window is open, it is the present calendar window; any other begins with the next
    call and has no end yet (None).
    """
    if state is not None and not state.ended:
        return _time(state.end)
    window = parse_window(ref.window)
    return _time(bounds(window, now)[1]) if window.period else None


def _usd(nanos: int) -> Decimal:
    amount = Decimal(nanos).scaleb(-9)
    whole = amount.to_integral_value()
    return whole if whole == amount else amount.normalize()


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / MICROS, tz=timezone.utc)


def _summed(
    rows: tuple[tuple[UsageKey, Usage], ...], named: Callable[[UsageKey], tuple[str, ...]]
) -> list[tuple[tuple[str, ...], UsageTotals]]:
    sums: dict[tuple[str, ...], Usage] = {}
    for key, usage in rows:
        name = named(key)
        sums[name] = sums.get(name, Usage()).plus(usage)
    order = sorted(sums, key=lambda name: [(part != "before", part) for part in name])
    return [(name, UsageTotals(_usd(sums[name].spent), *sums[name][1:])) for name in order]
