"""Budgets for one run of an agent. Every call inside of it counts against the run, and against the budgets of its user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from types import TracebackType

from typing_extensions import Self

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget, SetLimits
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.sentences import parse_limits
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.hooks.context import budget_context
from litellm_budget_plugin.hooks.registration import opened_ledger
from litellm_budget_plugin.manager.budgets import Budgets, RunState
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.policy import smaller


class budget_run:  # noqa: N801  # used like a function
    """Within this context, LiteLLM calls count against a run with these limits (sentences such as "$0.50"), and against
    `user`, `team` and `tags` as in `budget_context`. A run inside of a run counts against both.

        with budget_run("$0.50", user="alice") as run:
            answer = litellm.completion(...)
            run.remaining  # Decimal US dollars

    The limits are in the ledger, so that they hold wherever the run continues: another process, thread or machine takes
    part with `budget_context(run=run.id)`. Limits for every run (RUN_LIMITS, the file) count in addition; of two for
    the same, the smaller one counts. `id` names the run, by default with a new id. A run that is entered again keeps
    what it has spent, and gets these limits if any are given. Can be entered with `async with`, too. Entering raises
    BudgetInputError for limits that cannot be read, BudgetStoreError if the ledger does not answer, and BudgetError if
    no BudgetCallback is open.
    """

    def __init__(
        self,
        *limits: str,
        user: str | int | None = None,
        team: str | int | None = None,
        tags: Iterable[str | int] | str = (),
        id: str | int | None = None,  # noqa: A002  # the run's own word
    ) -> None:
        self.id = checked_id(id, "budget_run(id=...)") if id is not None else f"run-{new_id()}"
        self._texts = limits
        parse_limits(limits)
        self._context = budget_context(user=user, team=team, tags=tags, run=self.id)
        self._opened: Budgets | None = None

    @property
    def _budgets(self) -> Budgets:
        if self._opened is None:
            raise BudgetError("a budget_run is in the ledger only after it was entered")
        return self._opened

    def __enter__(self) -> Self:
        self._open()
        self._context.__enter__()
        return self

    async def __aenter__(self) -> Self:
        # A networked ledger must not block the event loop.
        await asyncio.to_thread(self._open)
        self._context.__enter__()
        return self

    def _open(self) -> None:
        ledger = opened_ledger()
        if ledger is None:
            raise BudgetError("budget_run needs an open BudgetCallback: litellm.callbacks = [BudgetCallback()]")
        subject = Subject("run", self.id)
        limits = parse_limits(self._texts, ledger.settings.timezone)
        policy = ledger.policies.look()
        defaults = policy.defaults_of((subject,))
        if limits:
            both = smaller(policy.limits(subject), limits)
            ledger.ask(SetLimits(new_id(), ledger.project, subject, both, defaults))
        else:
            # Makes the run visible to others from now on. The limits of an existing run stay.
            ledger.ask(PutBudget(new_id(), ledger.project, subject, defaults=defaults))
        self._opened = Budgets(ledger)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, traceback)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    @property
    def state(self) -> RunState:
        """The run as the ledger knows it now."""
        return self._budgets.run(self.id)

    @property
    def spent(self) -> Decimal:
        """The cost of the run's calls so far, wherever they were made, in US dollars."""
        return self.state.spent

    @property
    def remaining(self) -> Decimal | None:
        """The amount that the run may still spend, without what calls in flight hold, in US dollars. None without a
        limit. A run inside of others has no more than they have.
        """
        runs = (*self._context.payer.given.runs, self.id)
        left = [self._budgets.run(run).remaining for run in dict.fromkeys(runs)]
        return min((each for each in left if each is not None), default=None)

    @property
    def by_model(self) -> dict[str, Decimal]:
        """The cost of the run's calls, by model, in US dollars."""
        rows = self._budgets.usage(by="model", subject=f"run:{self.id}")
        return {row.key: row.spent for row in rows if row.calls}  # not what was only refused

    def stop(self) -> None:
        """Refuse every further call of the run, everywhere."""
        self._budgets.block(f"run:{self.id}")
