"""How much room a call's budgets have, read before the ledger is asked to hold: a refusal is recorded, a look is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import UNITS, Amounts, Ref, Subject
from litellm_budget_plugin.core.commands import AccountState, Read, Reserve
from litellm_budget_plugin.core.money import MAX_NANOS
from litellm_budget_plugin.manager.ledger import BudgetLedger


class Headroom(NamedTuple):
    """What may still be held, in every unit; MAX_NANOS where nothing limits. By the time it is used, others may have held
    some of it.
    """

    free: Amounts
    held: bool
    """Calls in flight hold some of what is limited."""
    tightest: Ref | None
    """The account that leaves the least US dollars; None where none is limited."""

    def covers(self, want: Amounts) -> bool:
        """Whether `want` could be held."""
        return all(needed <= left for needed, left in zip(want, self.free))


def headroom_for(ledger: BudgetLedger, command: Reserve) -> Headroom:
    """The room on every account that `command` names, by the rule that Reserve itself follows. Raises BudgetStoreError."""
    free = dict.fromkeys(UNITS, MAX_NANOS)
    held, tightest = False, None
    for subject in command.subjects:
        reply = ledger.ask_in_call(Read(command.project, subject.scope, subject.id, defaults=command.defaults))
        for ref, limit, state in _limits(reply.accounts, command, subject):
            held = held or (state is not None and state.held > 0)
            left = max(0, limit - (state.spent + state.held if state is not None else 0))
            if left < free[ref.unit]:
                free[ref.unit] = left
                tightest = ref if ref.unit == "usd" else tightest
    return Headroom(Amounts(*(free[unit] for unit in UNITS)), held, tightest)


def _limits(
    states: tuple[AccountState, ...], command: Reserve, subject: Subject
) -> Iterator[tuple[Ref, int, AccountState | None]]:
    """Each account of a subject that limits the command: its key, its limit, and its state unless it is yet to be made."""
    models = ("", *command.models)
    known = {state.ref: state for state in states}
    pinned = {(state.ref.model, state.ref.unit) for state in states if state.pinned}
    for ref, state in known.items():
        if ref.model not in models:
            continue
        if state.blocked:
            yield ref, 0, state
        elif state.pinned and state.limit is not None:
            yield ref, state.limit, state
    for default in command.defaults:
        if default.scope != subject.scope or default.model not in models or (default.model, default.unit) in pinned:
            continue
        ref = Ref(subject.scope, subject.id, default.model, default.window, default.unit)
        found = known.get(ref)
        limit = default.limit if found is None else found.limit
        if limit is not None:
            yield ref, limit, found
