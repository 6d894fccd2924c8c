"""What the ledger says of one subject now, asked when the page is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from litellm_budget_plugin.core.accounts import Usage, UsageKey
from litellm_budget_plugin.core.commands import Accounts, AccountState, Read, ReadUsage
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.server.dashboard.people import Person, counting, person_of, share_of
from litellm_budget_plugin.server.dashboard.totals import DAYS, ByDay, by_day, models_of, summed
from litellm_budget_plugin.server.ledger import ServedLedger


@dataclass(frozen=True)
class Budget:
    """An account as a page shows it."""

    state: AccountState
    now: int

    @property
    def share(self) -> float:
        """Which part of the limit is spent or held; -1.0 without a limit."""
        return share_of(self.state)

    @property
    def raised(self) -> bool:
        """Whether a raise is in force."""
        return self.state.raised_by > 0 and self.state.raised_until > self.now

    @property
    def left(self) -> int | None:
        """What may still be spent; None without a limit."""
        state = self.state
        return None if state.limit is None else max(0, state.limit - state.spent - state.held)


@dataclass(frozen=True)
class Spender:
    """One subject: `budgets` are the accounts that calls count against, `days` the last DAYS days, and `now` the store's time."""

    id: str
    now: int
    budgets: tuple[Budget, ...]
    days: ByDay

    @property
    def known(self) -> bool:
        """Whether the ledger has anything of it."""
        return bool(self.budgets or self.days)

    @property
    def today(self) -> int:
        """The day that it is."""
        return self.now // DAY

    @property
    def total(self) -> Usage:
        """All of the days."""
        return summed(usage for models in self.days.values() for usage in models.values())

    @property
    def of_today(self) -> Usage:
        """Today's."""
        return summed(self.days.get(self.today, {}).values())

    @property
    def models(self) -> list[tuple[str, Usage]]:
        """By model, the dearest first."""
        return models_of(self.days)

    @property
    def in_flight(self) -> int:
        """Nano-dollars held for calls that go on: every hold lies on each account that it counts against."""
        return max((one.state.held for one in self.budgets if one.state.ref.unit == "usd"), default=0)

    def main(self, model: str = "") -> Budget | None:
        """The budget in US dollars for all models, or for one."""
        found = [one for one in self.budgets if one.state.ref.model == model and one.state.ref.unit == "usd"]
        return min(found, key=lambda one: (not one.state.pinned, one.state.limit is None, one.state.ref), default=None)


async def budgets_of(ledger: ServedLedger, project: str, scope: str, subject: str) -> tuple[int, tuple[Budget, ...]]:
    """The store's time, and the accounts of a subject that calls count against. Raises what the store raises."""
    reply = await ledger.execute(Read(project, scope, subject, defaults=ledger.defaults(project)))
    counted = sorted(counting(reply.accounts), key=lambda state: (state.ref.model, state.ref.unit, state.ref.window))
    return reply.now, tuple(Budget(state, reply.now) for state in counted)


async def people_now(ledger: ServedLedger, project: str, people: Sequence[Person]) -> list[Person]:
    """The same people as they are now; those whom the ledger has forgotten since stay as they were."""
    defaults = ledger.defaults(project)
    replies = await ledger.execute_all([Read(project, "user", person.id, defaults=defaults) for person in people])
    return [
        person_of(person.id, reply.accounts) if isinstance(reply, Accounts) and reply.accounts else person
        for person, reply in zip(people, replies)
    ]


async def spender_of(ledger: ServedLedger, project: str, subject: str) -> Spender:
    """A user. Raises what the store raises."""
    now, budgets = await budgets_of(ledger, project, "user", subject)
    rows = await usage_of(ledger, project, subject, now // DAY - DAYS + 1)
    return Spender(subject, now, budgets, await run_in_threadpool(by_day, rows))


async def usage_of(
    ledger: ServedLedger, project: str, subject: str, since: int = 0
) -> tuple[tuple[UsageKey, Usage], ...]:
    """A user's totals from a day on. Raises what the store raises."""
    reply = await ledger.execute(ReadUsage(project, "user", subject, since=since))
    return reply.rows
