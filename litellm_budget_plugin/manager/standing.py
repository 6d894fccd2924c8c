"""How subjects stand towards their budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.applying import defaults_for, limits_on
from litellm_budget_plugin.core.commands import MICROS, Accounts, AccountState, Read
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.manager.ledger import BudgetLedger


class BudgetLine(NamedTuple):
    """One budget. Amounts are US dollars for budgets in US dollars, else numbers; `left` and `used` are None without a limit."""

    budget: str
    spent: Decimal | int
    held: Decimal | int
    left: Decimal | int | None
    used: float | None
    resets_at: datetime | None


UNLIMITED = BudgetLine("unlimited", Decimal(0), Decimal(0), None, None, None)
"""What is shown of a subject without budgets."""


class SubjectStanding(NamedTuple):
    """A subject with its budgets, that of which the largest part is used first."""

    subject: Subject
    lines: list[BudgetLine]
    blocked: bool

    @property
    def used(self) -> float:
        """The largest part of a budget that is spent or held; 0 without budgets."""
        return max((line.used for line in self.lines if line.used is not None), default=0.0)

    def row(self) -> dict[str, Any]:
        """A row of a list: the budget that binds first."""
        binding = self.lines[0] if self.lines else UNLIMITED
        return {"subject": f"{self.subject.scope}:{self.subject.id}", **binding._asdict(), "blocked": self.blocked}


def standings(
    ledger: BudgetLedger, scope: str, seen: Callable[[int], object] = lambda _: None
) -> Iterator[SubjectStanding]:
    """Every subject of a scope that has an account, in the order of their ids, a page of them in one round trip. `seen` is told how
    many more were read.
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
                yield _standing(subject, tuple(states), everybody)
            else:
                yield from read_standings(ledger, [subject])
        seen(subjects)
        after = reply.after


def read_standings(ledger: BudgetLedger, subjects: Iterable[Subject]) -> Iterator[SubjectStanding]:
    """These subjects, known or not; one round trip where the store can."""
    policy = ledger.policies.look()
    commands = [Read(ledger.project, *each, defaults=policy.defaults_of((each,))) for each in subjects]
    for command, reply in zip(commands, ledger.client.ask_all(commands, ledger.patience)):
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, Accounts)
        assert command.subject is not None
        yield _standing(Subject(command.scope, command.subject), reply.accounts, command.defaults)


def _standing(subject: Subject, states: tuple[AccountState, ...], defaults: tuple[Default, ...]) -> SubjectStanding:
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
        end = None if state is None or state.ended or state.end is None else state.end
        lines.append(
            BudgetLine(
                str(Limit(own, ref.window, ref.model, ref.unit)),
                _amount(spent, ref.unit),
                _amount(held, ref.unit),
                None if left is None else _amount(left, ref.unit),
                used,
                None if end is None else datetime.fromtimestamp(end / MICROS, timezone.utc),
            )
        )
    lines.sort(key=lambda line: -1.0 if line.used is None else line.used, reverse=True)
    return SubjectStanding(subject, lines, any(state.blocked for state in states))


def _amount(amount: int, unit: str) -> Decimal | int:
    return amount if unit != "usd" else Decimal(amount).scaleb(-9).normalize()
