"""Claims make sure that one process sends an alert for all. A claim is held and settled on the ledger, like the money of a call.

An alert has a budget of one call on each channel. The process that holds this call may send the alert. When the receiver has accepted
it, the call is charged, and no process sends the alert again. If the process dies, its hold expires uncharged, and another process sends.
"""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple, Protocol

from litellm_budget_plugin.core.accounts import CLAIMS, Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    MICROS,
    BaseCommand,
    Granted,
    Read,
    Release,
    Renew,
    ReplyT_co,
    Reserve,
    Settle,
)
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.ids import new_id

_logger = logging.getLogger("litellm_budget_plugin")
LEASE_SECONDS = 60.0
_ONCE = Amounts(calls=1)
_MOST_OWN = 10_000


class Ask(Protocol):
    """A function that asks the ledger."""

    def __call__(self, command: BaseCommand[ReplyT_co], /) -> ReplyT_co:
        """Return the reply. Raises BudgetStoreError, BudgetInputError."""


class Deliver(Protocol):
    """A function that delivers a charge and never loses it."""

    def __call__(self, command: Settle, /) -> None:
        """Apply the charge now, or as soon as the store answers."""


class Claim(NamedTuple):
    """The right to do something until the lease ends. `hold` is "" if the ledger keeps no claims."""

    name: str
    hold: str


class Claims:
    """One project's claims. `lease` is in seconds.

    If the ledger keeps no claims, such as an earlier version behind an endpoint, each process gets each claim once.
    """

    def __init__(self, project: str, ask: Ask, deliver: Deliver, lease: float = LEASE_SECONDS) -> None:
        self.lease = lease
        self._project, self._ask, self._deliver = project, ask, deliver
        self._own: dict[str, None] = {}
        self._warned = False

    def take(self, name: str) -> Claim | Literal[False] | None:
        """Take and return a claim; None if another process has it now, False if the work was done. Raises BudgetStoreUnavailable."""
        subject = Subject(CLAIMS, name)
        defaults = (Default(CLAIMS, "none", 1, unit="calls", subject=name),)
        hold = new_id()
        try:
            # Read first: a refused Reserve would leave a mark on the ledger.
            accounts = self._ask(Read(self._project, *subject)).accounts
            if any(account.spent for account in accounts):
                return False
            reply = self._ask(
                Reserve(hold, self._project, (subject,), (), _ONCE, round(self.lease * MICROS), defaults, patient=True)
            )
        except BudgetStoreUnavailable:
            raise
        except (BudgetInputError, BudgetStoreError) as error:
            if not self._warned:
                self._warned = True
                _logger.warning("this ledger cannot coordinate alerts, each process sends its own: %s", error)
            return self._take_own(name)
        if isinstance(reply, Granted):
            return Claim(name, hold)
        return None

    def _take_own(self, name: str) -> Claim | Literal[False]:
        if name in self._own:
            return False
        self._own[name] = None
        if len(self._own) > _MOST_OWN:
            self._own.pop(next(iter(self._own)))
        return Claim(name, "")

    def renew(self, claim: Claim) -> bool:
        """Renew the claim for a whole lease, and return whether it still holds. Raises BudgetStoreError."""
        if not claim.hold:
            return True
        return not self._ask(Renew((claim.hold,), self._project, round(self.lease * MICROS))).missing

    def done(self, claim: Claim) -> None:
        """Settle the claim: its work was done, and no process may do it again."""
        if claim.hold:
            subject = Subject(CLAIMS, claim.name)
            defaults = (Default(CLAIMS, "none", 1, unit="calls", subject=claim.name),)
            self._deliver(Settle(claim.hold, self._project, (subject,), (), 0, "", defaults=defaults))

    def give_back(self, claim: Claim) -> None:
        """Give up the claim without doing its work, so that another process may take it. Raises BudgetStoreError."""
        if not claim.hold:
            self._own.pop(claim.name, None)
        else:
            self._ask(Release(claim.hold, self._project))
