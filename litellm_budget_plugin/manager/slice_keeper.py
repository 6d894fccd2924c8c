"""The background work for slices: hold them on the ledger, renew them, and retire those that block other calls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.applying import limits_on
from litellm_budget_plugin.core.commands import (
    MICROS,
    Accounts,
    AccountState,
    Granted,
    Read,
    Release,
    Renew,
    Renewed,
    Reserve,
)
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.manager import slices as admission
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.slices import SHARE, WARM_SECONDS, Key, Slice, Slices

if TYPE_CHECKING:
    from litellm_budget_plugin.manager.ledger import BudgetLedger

_RENEW_SECONDS = 1.0
"""How often slices are compared with their accounts. For so long, a slice may still spend from a budget that was blocked."""
_SHRINK = 8
"""The factor by which the next attempt at a slice is smaller if the ledger has not enough left."""
_CALLS = 1_000
"""How many calls a whole slice covers if calls or tokens are limited as well."""
_USED = 0.75
"""The part of its lifetime on the ledger in which a slice is used, because this process's clock may be slower than the ledger's."""


class SliceKeeper(Slices):
    """The slices of one ledger, of `size` nano-dollars each, with their maintenance. A `PeriodicTask`."""

    def __init__(self, ledger: BudgetLedger, size: int) -> None:
        super().__init__(ledger.project, size, ledger.worker.deliver_later)
        self._ledger = ledger
        self._renewed_at = 0.0

    def run(self) -> None:
        """Hold the slices that calls need, and once a second renew the existing ones. Raises BudgetStoreError."""
        while (needed := self.take_wanted()) is not None:
            self._hold(*needed)
        if time.monotonic() - self._renewed_at >= _RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            self.renew()

    def _hold(self, key: Key, want: Amounts) -> None:
        """Hold a slice; if too little is left for a whole one, hold a smaller one."""
        size = self._size
        while size >= want.usd * SHARE and size > 0:
            if self._ask(key, want, size):
                return
            size //= _SHRINK
        self.postpone(key)

    def _ask(self, key: Key, want: Amounts, size: int) -> bool:
        # More calls than fit at their worst-case cost, because most cost much less.
        calls = max(1, _CALLS * size // self._size)
        amounts = Amounts(size, want.calls * calls, want.tokens * calls)
        ledger, hold, asked_at = self._ledger, new_id(), admission.awake_time()
        # `cheap`: granted only if 64 times as much is left, so that the slice causes no refusals elsewhere.
        command = Reserve(
            hold,
            ledger.project,
            key.subjects,
            key.models,
            amounts,
            ledger.hold_ttl,
            key.defaults,
            cheap=True,
            patient=True,
        )
        try:
            reply = ledger.client.ask(command, ledger.patience)
        except BudgetStoreError:
            # The ledger may have granted the hold, or may still grant it.
            ledger.worker.deliver_later(Release(hold, ledger.project))
            raise
        if not isinstance(reply, Granted):
            return False
        self.put(Slice(hold, key, reply.amounts, reply.amounts, self._until(asked_at), asked_at))
        return True

    def _until(self, asked_at: float) -> float:
        return asked_at + self._ledger.hold_ttl / MICROS * _USED

    def renew(self) -> None:
        """Renew the slices. Retire those that no call uses, that the ledger no longer has, that are blocked, or whose account has less
        left than they hold, because they may cause the refusal of another call.

        Raises BudgetStoreError if the ledger does not answer; then the slices are used until their time ends.
        """
        ledger, now = self._ledger, admission.awake_time()
        self.forget_old()
        held = self.retire_where(lambda one: now - one.used_at >= WARM_SECONDS or now >= one.until)
        open_slices = [one for one in held if not one.closing]
        if not held:
            return
        asked = list(dict.fromkeys((each, one.key.defaults) for one in open_slices for each in one.key.subjects))
        reads = [Read(ledger.project, *subject, defaults=defaults) for subject, defaults in asked]
        renewal = Renew(tuple(one.id for one in held), ledger.project, ledger.hold_ttl)
        renewed, *read = ledger.client.ask_all([renewal, *reads], ledger.patience)
        missing = set(renewed.missing) if isinstance(renewed, Renewed) else set()
        states = {key: reply.accounts for key, reply in zip(asked, read) if isinstance(reply, Accounts)}
        for one in held:
            if one.id not in missing:
                one.until = self._until(now)
        blocking = {one.id for one in open_slices if _blocks(one, states)}
        self.retire_where(lambda one: one.id in missing or one.id in blocking)
        for one in open_slices:
            if one.id in blocking and one.id not in missing:
                self.postpone(one.key)


def _blocks(one: Slice, states: Mapping[tuple[Subject, tuple[Default, ...]], tuple[AccountState, ...]]) -> bool:
    """Return whether an account of the slice is blocked, or has less left than the slice holds."""
    subjects, models, defaults = one.key
    for subject in subjects:
        for ref, limit, state in limits_on(subject, states.get((subject, defaults), ()), models, defaults):
            amount = one.granted.of(ref.unit)
            if amount and limit is not None and state is not None and limit - state.spent - state.held < amount:
                return True
    return False
