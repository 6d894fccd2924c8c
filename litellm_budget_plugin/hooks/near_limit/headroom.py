"""The room in a call's budgets, read before the ledger is asked to hold: a refusal is recorded, a read is not."""

from __future__ import annotations

from typing import NamedTuple

from litellm_budget_plugin.core.accounts import UNITS, Amounts, Default, Ref, Subject
from litellm_budget_plugin.core.applying import limits_on
from litellm_budget_plugin.core.commands import Accounts, Read, Reserve
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.manager.ledger import BudgetLedger


class Headroom(NamedTuple):
    """The amounts that may still be held, in every unit; MAX_NANOS where there is no limit. Others may hold some of it
    before it is used.
    """

    free: Amounts
    held: bool
    """Whether calls in flight hold some of what is limited."""
    tightest: Ref | None
    """The account that leaves the fewest US dollars; None if no account is limited."""

    def covers(self, want: Amounts) -> bool:
        """Return whether `want` could be held."""
        return all(needed <= left for needed, left in zip(want, self.free))


def fits_unheld(
    ledger: BudgetLedger,
    subjects: tuple[Subject, ...],
    models: tuple[str, ...],
    defaults: tuple[Default, ...],
    want: Amounts,
) -> bool:
    """Return whether every account has room for `want` in addition to what is spent, once nothing is held. Raises
    BudgetStoreError.
    """
    for subject in subjects:
        reply = ledger.ask_in_call(Read(ledger.project, subject.scope, subject.id, defaults=defaults))
        for ref, limit, state in limits_on(subject, reply.accounts, models, defaults):
            needed = want.of(ref.unit)
            if limit is not None and needed and limit - (state.spent if state is not None else 0) < needed:
                return False
    return True


def headroom_for(ledger: BudgetLedger, command: Reserve) -> Headroom:
    """Return the room on every account that `command` names, by the rule that Reserve follows. Raises BudgetStoreError."""
    free = dict.fromkeys(UNITS, MAX_NANOS)
    held, tightest = False, None
    for subject in command.subjects:
        reply = ledger.ask_in_call(Read(command.project, subject.scope, subject.id, defaults=command.defaults))
        states = reply.accounts if isinstance(reply, Accounts) else ()
        for ref, limit, state in limits_on(subject, states, command.models, command.defaults):
            if limit is None:
                continue
            held = held or (state is not None and state.held > 0)
            left = max(0, limit - (state.spent + state.held if state is not None else 0))
            if left < free[ref.unit]:
                free[ref.unit] = left
                tightest = ref if ref.unit == "usd" else tightest
    return Headroom(Amounts(*(free[unit] for unit in UNITS)), held, tightest)
