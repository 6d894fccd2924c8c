"""A test's view of the edge: the ledger behind a callback, and the provider's bill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litellm_budget_plugin import BudgetCallback, BudgetExceeded
from tests.edge.provider import BillingProvider
from tests.hooks.desk import Desk


class Edge(Desk):
    """A registered callback, and a provider that bills what a request allows."""

    def __init__(self, callback: BudgetCallback, provider: BillingProvider) -> None:
        super().__init__(callback, provider.url)
        self.provider = provider
        self._users = 0

    def new_user(self) -> str:
        """Return a user who has spent nothing."""
        self._users += 1
        return f"user-{self._users}"

    def calm(self, user: str) -> int:
        """Return what was spent once nothing is held, which must happen. Garbage is collected only if something is
        held.
        """
        self.callback.flush()
        return super().calm(user) if self.held(user) else self.spent(user)

    def call(self, function: Callable[..., Any], user: str, **arguments: Any) -> Outcome:
        """Call a function of LiteLLM's for `user`, and return its outcome."""
        held: list[int] = []
        self.provider.watch = lambda body: held.append(self.held(user))
        before = self.provider.bill
        error: BaseException | None = None
        answer: Any = None
        try:
            answer = function(**arguments)
        except Exception as raised:  # the test checks how the call ends
            error = raised
        finally:
            self.provider.watch = len
        return Outcome(answer, error, self.provider.bill - before, max(held, default=0), len(held))


class Outcome:
    """The outcome of one call: its answer or error, what the provider billed for it, and what was held meanwhile."""

    def __init__(self, answer: Any, error: BaseException | None, bill: int, held: int, requests: int) -> None:
        self.answer = answer
        self.error = error
        self.bill = bill
        self.held = held
        self.requests = requests

    @property
    def refused(self) -> bool:
        """Whether the budget has stopped it: nothing was billed, and the caller knows why."""
        return self.requests == 0 and any(isinstance(link, BudgetExceeded) for link in _chain(self.error))

    def __repr__(self) -> str:
        return f"Outcome(bill={self.bill}, held={self.held}, requests={self.requests}, error={str(self.error)[:300]!r})"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
