"""The state of subjects' budgets: spent, held and left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.applying import defaults_for, limits_on, whole_mark
from litellm_budget_plugin.core.commands import MICROS, Accounts, AccountState, Read
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.policy import Policy


class BudgetLine(NamedTuple):
    """One budget. Amounts are in US dollars, or in calls or tokens for budgets in those units. `left`, `used` and `limit` are None without
    a limit. `used` is a fraction.

    `limit` is the limit that counts now, including the amount carried over and `raised`. `raised` is None unless a raise is in force; it
    ends at `raised_until`.
    """

    budget: str
    spent: Decimal | int
    held: Decimal | int
    left: Decimal | int | None
    used: float | None
    resets_at: datetime | None
    limit: Decimal | int | None = None
    raised: Decimal | int | None = None
    raised_until: datetime | None = None


_RAISE = ("limit", "raised", "raised_until")
UNLIMITED = BudgetLine("unlimited", Decimal(0), Decimal(0), None, None, None)
"""The line that is shown for a subject without budgets."""


class SubjectStanding(NamedTuple):
    """A subject with its budgets, sorted by the fraction that is used, largest first. `unnamed` is the number of its other accounts with
    spend or held money under limits that the settings do not name.
    """

    subject: Subject
    lines: list[BudgetLine]
    blocked: bool
    unnamed: int = 0

    @property
    def used(self) -> float:
        """The largest fraction of a budget that is spent or held; 0 without budgets."""
        return max((line.used for line in self.lines if line.used is not None), default=0.0)

    def row(self) -> dict[str, Any]:
        """Return a row for a list of subjects, with the most used budget."""
        binding = self.lines[0] if self.lines else UNLIMITED
        shown = {name: one for name, one in binding._asdict().items() if name not in _RAISE}
        return {"subject": f"{self.subject.scope}:{self.subject.id}", **shown, "blocked": self.blocked}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each budget, including its raise; a single row "unlimited" without budgets."""
        for line in self.lines or [UNLIMITED]:
            yield self.row() | line._asdict()


def standings(
    ledger: BudgetLedger, scope: str, seen: Callable[[int], object] = lambda _: None
) -> Iterator[SubjectStanding]:
    """Yield every subject of a scope that has an account, in the order of their ids, one page per round trip. `seen` is called with the
    number of subjects on each page.
    """
    policy = ledger.policies.look()
    everybody = policy.defaults_of(())
    after: str | None = ""
    while after is not None:
        reply = ledger.ask(Read(ledger.project, scope, after=after, defaults=everybody))
        subjects = 0
        for name, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
            subject, subjects = Subject(scope, name), subjects + 1
            defaults = policy.defaults_of((subject,))
            if defaults == everybody:
                yield _standing(subject, tuple(states), everybody, policy, reply.now)
            else:
                yield from read_standings(ledger, [subject])
        seen(subjects)
        after = reply.after


def read_standings(ledger: BudgetLedger, subjects: Iterable[Subject]) -> Iterator[SubjectStanding]:
    """Yield these subjects, whether or not the ledger knows them; in one round trip if the store can do that."""
    policy = ledger.policies.look()
    commands = [Read(ledger.project, *each, defaults=policy.defaults_of((each,))) for each in subjects]
    for command, reply in zip(commands, ledger.client.ask_all(commands, ledger.patience)):
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, Accounts)
        assert command.subject is not None
        yield _standing(Subject(command.scope, command.subject), reply.accounts, command.defaults, policy, reply.now)


def unnamed_accounts(subject: Subject, states: Collection[AccountState], policy: Policy) -> int:
    """Return how many of a subject's accounts, given by `states`, have spend or held money in an open window, although no limit set by hand
    or in `policy` uses them. Services with other settings use such accounts, or did.
    """
    pinned = {(state.ref.model.casefold(), state.ref.unit) for state in states if state.pinned}
    if any(state.pinned and state.ref == whole_mark(subject) for state in states):
        return 0
    followed = defaults_for(subject, states, policy.defaults_of((subject,)))
    named = {(ref.model, ref.window, ref.unit) for ref in followed}
    if subject.scope == "user":
        named.add(("", "none", "usd"))  # the spend of users without a limit is recorded there
        # The application may name the class of a user.
        named |= {(one.model, one.window, one.unit) for each in policy.classes.values() for one in each.limits or ()}
    return sum(
        not (state.pinned or state.blocked or state.ended)
        and bool(state.spent or state.held)
        and (state.ref.model, state.ref.window, state.ref.unit) not in named
        and (state.ref.model.casefold(), state.ref.unit) not in pinned  # pinned limits precede every default
        for state in states
    )


def _standing(
    subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...], policy: Policy, now: int
) -> SubjectStanding:
    followed = defaults_for(subject, states, defaults)
    lines = []
    for ref, limit, state in limits_on(subject, states, None, defaults):
        own = followed[ref].limit if ref in followed else None
        if state is not None:
            limit, own = state.limit, state.own_limit if state.pinned else own  # noqa: PLW2901  # 0 if it is blocked
        spent, held = (state.spent, state.held) if state is not None else (0, 0)
        left, used = None, None
        if limit is not None:
            left, used = limit - spent - held, (spent + held) / limit if limit > 0 else 1.0
        end = None if state is None or state.ended else state.end
        raised = state is not None and limit is not None and state.raised_by and state.raised_until > now
        lines.append(
            BudgetLine(
                str(Limit(own, ref.window, ref.model, ref.unit)),
                _amount(spent, ref.unit),
                _amount(held, ref.unit),
                None if left is None else _amount(left, ref.unit),
                used,
                _time(end),
                None if limit is None else _amount(limit, ref.unit),
                _amount(state.raised_by, ref.unit) if state is not None and raised else None,
                _time(state.raised_until) if state is not None and raised else None,
            )
        )
    lines.sort(key=lambda line: -1.0 if line.used is None else line.used, reverse=True)
    blocked = any(state.blocked for state in states)
    return SubjectStanding(subject, lines, blocked, unnamed_accounts(subject, states, policy))


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / MICROS, timezone.utc)


def _amount(amount: int, unit: str) -> Decimal | int:
    return amount if unit != "usd" else Decimal(amount).scaleb(-9).normalize()
