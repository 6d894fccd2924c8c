"""The users of one project, as BudgetManager knows them: one account each, without a model and in US dollars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import AccountState, DropBudget, PutBudget, Read, Reset
from litellm_budget_plugin.core.litellm_record import changes, record_of, unopened_record, whole_record
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger

SCOPE = "user"


class Budget(NamedTuple):
    """What the ledger knows of one user at the time `now`. `state` is None if only the default applies to the user."""

    user: str
    state: AccountState | None
    default: Default
    now: int

    @property
    def own(self) -> bool:
        """Whether the user has a budget of their own."""
        return self.state is not None and self.state.pinned

    @property
    def valid(self) -> bool:
        """Whether a limit applies: the user's own or the default."""
        return self.own or self.default.limit is not None

    @property
    def listed(self) -> bool:
        """Whether the user is listed: they have a budget of their own, or spent something under the default."""
        state = self.state
        return self.own or (self.valid and state is not None and bool(state.spent or state.ended or state.epoch))

    @property
    def window(self) -> str:
        """The window that counts."""
        return self.default.window if self.state is None else self.state.ref.window

    def record(self) -> dict[str, Any]:
        """LiteLLM's record."""
        return unopened_record(self.default, self.now) if self.state is None else record_of(self.state, self.default)


class Users:
    """Reads and changes users' budgets. Every method asks the ledger; nothing is cached. Unknown users raise KeyError with their
    name, as in LiteLLM's dictionary. Threads may share it.
    """

    def __init__(self, ledger: BudgetLedger) -> None:
        self.ledger = ledger
        found = (default for default in ledger.defaults if (default.scope, default.model) == (SCOPE, ""))
        self._default = next(found, Default(SCOPE))

    def get_any(self, user: Any) -> Budget:
        """A user's budget, whether or not a limit applies. Raises BudgetInputError for what cannot be a user's id."""
        user = checked_id(user, SCOPE)
        self.ledger.worker.settle_waiting()
        reply = self.ledger.ask(Read(self.ledger.project, SCOPE, user, defaults=self.ledger.defaults))
        return self._budget(user, reply.accounts, reply.now)

    def get(self, user: Any) -> Budget:
        """The budget of a user to whom a limit applies. Raises KeyError for any other."""
        try:
            budget = self.get_any(user)
        except BudgetInputError:
            raise KeyError(user) from None
        if not budget.valid:
            raise KeyError(user)
        return budget

    def each(self) -> Iterator[Budget]:
        """Every listed user, in the order of their ids. Each is read in one step; other calls go on meanwhile."""
        self.ledger.worker.settle_waiting()
        after: str | None = ""
        while after is not None:
            reply = self.ledger.ask(Read(self.ledger.project, SCOPE, after=after, defaults=self.ledger.defaults))
            for user, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
                budget = self._budget(user, states, reply.now)
                if budget.listed:
                    yield budget
            after = reply.after

    def records(self) -> dict[str, dict[str, Any]]:
        """LiteLLM's dictionary: the record of every listed user."""
        return {budget.user: budget.record() for budget in self.each()}

    def put(self, user: str, fields: Mapping[str, Any], command: str | None = None) -> None:
        """Change a user's one budget by the fields of a `PutBudget`."""
        subject, ledger = Subject(SCOPE, user), self.ledger
        put = PutBudget(command or new_id(), ledger.project, subject, only=True, defaults=ledger.defaults, **fields)
        ledger.ask(put)

    def change(self, user: str, given: Mapping[str, Any]) -> Budget:
        """Set some keys of a user's record. Raises KeyError if the user does not exist, BudgetInputError for bad values."""
        budget = self.get(user)
        fields = self._changes(budget, given)
        if fields:
            self.put(user, fields)
        return self.get_any(user)

    def assign(self, records: Mapping[Any, Any]) -> None:
        """Replace whole records, or make new ones. Bad ones raise BudgetInputError before anything is changed."""
        checked = [(self.get_any(user), whole_record(record)) for user, record in records.items()]
        for budget, fields in [(budget, self._changes(budget, record)) for budget, record in checked]:
            self.put(budget.user, fields)

    def drop(self, users: Iterable[str]) -> None:
        """Forget users: their budgets and what they spent. Money that calls in flight hold stays held until they end."""
        for user in users:
            self.ledger.ask(DropBudget(new_id(), self.ledger.project, Subject(SCOPE, user), model=""))

    def reset(self, user: str) -> None:
        """Set what a user spent in the open window to zero."""
        self.ledger.ask(Reset(new_id(), self.ledger.project, Subject(SCOPE, user), model=""))

    def roll(self, budget: Budget) -> None:
        """Open the window that runs now, if the recorded one has ended."""
        if budget.state is not None and budget.state.ended:
            self.put(budget.user, {})

    def _changes(self, budget: Budget, given: Mapping[str, Any]) -> dict[str, Any]:
        return changes(given, budget.state, budget.window, budget.now, self.ledger.settings.timezone)

    def _budget(self, user: str, states: Iterable[AccountState], now: int) -> Budget:
        ours = [state for state in states if (state.ref.model, state.ref.unit) == ("", "usd")]
        window = self._default.window
        # The order in which PutBudget chooses the budget that it changes.
        state = min(ours, key=lambda state: (not state.pinned, state.ref.window != window, state.ref), default=None)
        if state is not None and not state.pinned and state.ref.window != window:
            state = None
        return Budget(user, state, self._default, now)
