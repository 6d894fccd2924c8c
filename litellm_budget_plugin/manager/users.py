"""The users of one project, as LiteLLM's methods show them: one budget each, in US dollars and for any model. Of a user's several budgets
it is the one with the least left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from litellm_budget_plugin.core.accounts import Default, Ref, Subject
from litellm_budget_plugin.core.applying import defaults_for
from litellm_budget_plugin.core.commands import AccountState, DropBudget, PutBudget, Read, Reset
from litellm_budget_plugin.core.litellm_record import changes, record_of, unopened_record, whole_record
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.windows import CREDIT
from litellm_budget_plugin.errors import BudgetInputError
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger

SCOPE = "user"


class Budget(NamedTuple):
    """One user's budget with the least left, as the ledger knows it at the time `now`. `state` is None if the user has no account yet.
    `default` applies to a user without a limit of their own.
    """

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
        """Whether the user is listed: a user with a budget of their own, or with spend under the default."""
        state = self.state
        return self.own or (self.valid and state is not None and bool(state.spent or state.ended or state.epoch))

    @property
    def window(self) -> str:
        """The window that counts."""
        return self.default.window if self.state is None else self.state.ref.window

    def record(self) -> dict[str, Any]:
        """Return the record in LiteLLM's format."""
        return unopened_record(self.default, self.now) if self.state is None else record_of(self.state, self.default)


class Users:
    """Methods to read and change users' budgets. Every method asks the ledger; nothing is cached. Unknown users raise KeyError with their
    name, as in LiteLLM's dictionary. Threads may share it.
    """

    def __init__(self, ledger: BudgetLedger) -> None:
        self.ledger = ledger

    def get_any(self, user: Any) -> Budget:
        """Return a user's budget, whether or not a limit applies. Raises BudgetInputError for an invalid user id."""
        user = checked_id(user, SCOPE)
        self.ledger.worker.settle_waiting()
        defaults = self._defaults(user)
        reply = self.ledger.ask(Read(self.ledger.project, SCOPE, user, defaults=defaults))
        return _budget(user, reply.accounts, defaults, reply.now)

    def get(self, user: Any) -> Budget:
        """Return the budget of a user with a limit. Raises KeyError for any other user."""
        try:
            budget = self.get_any(user)
        except BudgetInputError:
            raise KeyError(user) from None
        if not budget.valid:
            raise KeyError(user)
        return budget

    def each(self) -> Iterator[Budget]:
        """Yield every listed user, in the order of their ids. Each user is read in one step; other calls continue meanwhile."""
        self.ledger.worker.settle_waiting()
        after: str | None = ""
        while after is not None:
            defaults = self.ledger.defaults
            reply = self.ledger.ask(Read(self.ledger.project, SCOPE, after=after, defaults=defaults))
            for user, states in groupby(reply.accounts, key=lambda state: state.ref.subject):
                same = self._defaults(user) == defaults
                budget = _budget(user, list(states), defaults, reply.now) if same else self.get_any(user)
                if budget.listed:
                    yield budget
            after = reply.after

    def records(self) -> dict[str, dict[str, Any]]:
        """Return LiteLLM's dictionary: the record of every listed user."""
        return {budget.user: budget.record() for budget in self.each()}

    def put(self, user: str, fields: Mapping[str, Any], command: str | None = None) -> None:
        """Change a user's budget by the fields of a `PutBudget`. With a window, the budget becomes the only one in US dollars for any model;
        without, the budget with the least left is changed.
        """
        ledger, only = self.ledger, "window" in fields
        given = fields if only else {**fields, "window": self.get_any(user).window}
        subject, defaults = Subject(SCOPE, user), self._defaults(user)
        ledger.ask(PutBudget(command or new_id(), ledger.project, subject, only=only, defaults=defaults, **given))

    def change(self, user: str, given: Mapping[str, Any]) -> Budget:
        """Set some keys of a user's record. Raises KeyError for a user without a limit, and BudgetInputError for bad values."""
        budget = self.get(user)
        fields = self._changes(budget, given)
        if fields:
            self.put(user, fields)
        return self.get_any(user)

    def assign(self, records: Mapping[Any, Any]) -> None:
        """Replace whole records, or create new ones. Raises BudgetInputError for a bad record, before anything is changed."""
        checked = [(self.get_any(user), whole_record(record)) for user, record in records.items()]
        for budget, fields in [(budget, self._changes(budget, record)) for budget, record in checked]:
            self.put(budget.user, fields)

    def drop(self, users: Iterable[str]) -> None:
        """Forget users: their budgets and their spend. Money that calls in flight hold stays held until they end."""
        for user in users:
            self.ledger.ask(DropBudget(new_id(), self.ledger.project, Subject(SCOPE, user), model=""))

    def reset(self, user: str) -> None:
        """Set a user's spend in the open window to zero."""
        self.ledger.ask(Reset(new_id(), self.ledger.project, Subject(SCOPE, user), model=""))

    def roll(self, budget: Budget) -> None:
        """Open the present window, if the recorded one has ended."""
        if budget.state is not None and budget.state.ended:
            self.put(budget.user, {})

    def _changes(self, budget: Budget, given: Mapping[str, Any]) -> dict[str, Any]:
        return changes(given, budget.state, budget.window, budget.now, self.ledger.settings.timezone)

    def _defaults(self, user: str) -> tuple[Default, ...]:
        return self.ledger.policies.current().defaults_of((Subject(SCOPE, user),))


def _budget(user: str, states: Collection[AccountState], defaults: tuple[Default, ...], now: int) -> Budget:
    followed = defaults_for(Subject(SCOPE, user), states, defaults)
    known = {state.ref: state for state in states}
    refs = [*(state.ref for state in states if state.pinned), *followed]
    shown = [ref for ref in refs if (ref.model, ref.unit) == ("", "usd") and ref.window != CREDIT]

    def left(ref: Ref) -> float:
        state = known.get(ref)
        limit = followed[ref].limit if state is None else state.limit
        return math.inf if limit is None else limit - (state.spent + state.held if state is not None else 0)

    ref = min(shown, key=left, default=None)
    if ref is None:
        return Budget(user, None, Default(SCOPE), now)
    return Budget(user, known.get(ref), followed.get(ref, Default(SCOPE, ref.window)), now)
