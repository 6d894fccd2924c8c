"""The state of a subject in the ledger, read when a page is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from litellm_budget_plugin.core.accounts import Subject, Usage
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read, ReadUsage
from litellm_budget_plugin.core.sentences import Limit
from litellm_budget_plugin.core.windows import CREDIT, DAY
from litellm_budget_plugin.server.dashboard.people import Person, counting, person_of, share_of
from litellm_budget_plugin.server.dashboard.totals import DAYS, ByDay, by_day, models_of, summed
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.site import Site

_RANKED_SECONDS = 60.0
"""Seconds after which the order of a project's models is read again."""


@dataclass(frozen=True)
class Budget:
    """An account as a page shows it. `state` is as `counting` returns it."""

    state: AccountState
    now: int

    @property
    def share(self) -> float:
        """The share of the limit that is spent or held; -1.0 without a limit."""
        return share_of(self.state)

    @property
    def raised(self) -> bool:
        """Whether a raise is in force."""
        return self.state.raised_by > 0 and self.state.raised_until > self.now

    @property
    def left(self) -> int | None:
        """The amount that may still be spent; None without a limit."""
        state = self.state
        return None if state.limit is None else max(0, state.limit - state.spent - state.held)

    @property
    def limited(self) -> bool:
        """Whether a limit is known, "unlimited" by hand included."""
        return self.state.pinned or self.state.own_limit is not None

    @property
    def credit(self) -> bool:
        """Whether it is a prepaid balance."""
        return self.state.ref.window == CREDIT

    @property
    def sentence(self) -> str:
        """The limit as it was set, without amounts that were carried over or raised."""
        ref = self.state.ref
        return str(Limit(self.state.own_limit, ref.window, ref.model, ref.unit))


@dataclass(frozen=True)
class Spender:
    """A subject. `budgets` are the accounts that calls count against, `days` the totals from day `first` on, `now` the store's
    time.
    """

    subject: Subject
    now: int
    budgets: tuple[Budget, ...]
    first: int
    days: ByDay

    @property
    def known(self) -> bool:
        """Whether the ledger has any data about it."""
        return bool(self.days or any(budget.state.created_at for budget in self.budgets))

    @property
    def limits(self) -> list[str]:
        """The sentences that can be changed. A balance with payments cannot be changed here."""
        return [
            one.sentence
            for one in self.budgets
            if one.limited and not (one.credit and (one.state.limit or one.state.spent))
        ]

    @property
    def by_hand(self) -> bool:
        """Whether a limit was set by hand."""
        return any(one.state.pinned and not one.credit for one in self.budgets)

    @property
    def blocked(self) -> bool:
        """Whether calls are refused regardless of the limit."""
        return any(one.state.blocked for one in self.budgets)

    @property
    def raised(self) -> bool:
        """Whether a limit is raised now."""
        return any(one.raised for one in self.budgets)

    @property
    def balance(self) -> int | None:
        """Nano-dollars that were paid and are neither spent nor held; None if a balance does not count here."""
        found = next((one.state for one in self.budgets if one.credit), None)
        return None if found is None else (found.limit or 0) - found.spent - found.held

    @property
    def today(self) -> int:
        """The current day in UTC, counted since 1970-01-01."""
        return self.now // DAY

    @property
    def total(self) -> Usage:
        """The sum of all days."""
        return summed(usage for models in self.days.values() for usage in models.values())

    @property
    def of_today(self) -> Usage:
        """The usage of today."""
        return summed(self.days.get(self.today, {}).values())

    @property
    def models(self) -> list[tuple[str, Usage]]:
        """Usage by model, most expensive first."""
        return models_of(self.days)

    @property
    def in_flight(self) -> int:
        """Nano-dollars held for calls in flight. Each hold is on every account that it counts against, so they are not added up."""
        return max((one.state.held for one in self.budgets if one.state.ref.unit == "usd"), default=0)


async def budgets_of(ledger: ServedLedger, project: str, subject: Subject) -> tuple[int, tuple[Budget, ...]]:
    """Return the store's time, and the accounts of a subject that calls count against. Raises what the store raises."""
    defaults = ledger.defaults(project, subject)
    reply = await ledger.execute(Read(project, *subject, defaults=defaults))
    counted = counting(subject, reply.accounts, defaults, reply.now, coming=True)
    return reply.now, tuple(Budget(state, reply.now) for state in counted)


async def people_now(ledger: ServedLedger, project: str, scope: str, people: Sequence[Person]) -> list[Person]:
    """Return the same people with their current amounts. Those that the ledger has dropped since stay as they were."""
    subjects = [Subject(scope, person.id) for person in people]
    defaults = [ledger.defaults(project, subject) for subject in subjects]
    replies = await ledger.execute_all(
        [Read(project, *subject, defaults=each) for subject, each in zip(subjects, defaults)]
    )
    return [
        person_of(subject, reply.accounts, each, reply.now)
        if isinstance(reply, Accounts) and reply.accounts
        else person
        for person, subject, each, reply in zip(people, subjects, defaults, replies)
    ]


async def spender_of(ledger: ServedLedger, project: str, subject: Subject, days: int = DAYS) -> Spender:
    """Return a subject with the totals of the last `days` days. Raises what the store raises."""
    now, budgets = await budgets_of(ledger, project, subject)
    first = now // DAY - days + 1
    return Spender(subject, now, budgets, first, await _days_of(ledger, project, subject, first))


async def _days_of(ledger: ServedLedger, project: str, subject: Subject, first: int) -> ByDay:
    reply = await ledger.execute(ReadUsage(project, *subject, since=first))
    return await run_in_threadpool(by_day, reply.rows)


async def ranked_models(site: Site, project: str) -> tuple[str, ...]:
    """Return the project's models, the most expensive of the last days first. Raises what the store raises."""
    at, names = site.ranked.get(project, (0.0, ()))
    if time.monotonic() - at > _RANKED_SECONDS or not names:
        today = time.time_ns() // 1000 // DAY
        days = await _days_of(site.ledger, project, Subject("project", project), today - DAYS + 1)
        names = tuple(name for name, _ in models_of(days))
        if names:
            site.ranked[project] = time.monotonic(), names
    return names
