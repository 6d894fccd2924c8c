"""Helpers for tests of applications that use budgets.

    from litellm_budget_plugin.testing import MemoryBudget

    with MemoryBudget("$1/day") as budget:
        my_application()
        budget.assert_spent("alice", "0.0125")

In pytest, use the fixtures `budget` and `budget_clock`. `disabled` is a block without budgets.
"""

from __future__ import annotations

import gc
import itertools
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from types import TracebackType
from typing import Any

from pydantic import SecretStr
from typing_extensions import Self

from litellm_budget_plugin.core.commands import Settle
from litellm_budget_plugin.core.money import charge_nanos, usd_text
from litellm_budget_plugin.errors import BudgetRefused
from litellm_budget_plugin.hooks.callback import BudgetCallback
from litellm_budget_plugin.hooks.registration import disabled, override_callback
from litellm_budget_plugin.manager.budgets import Remaining, UsageRow
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.ledger import BudgetLedger
from litellm_budget_plugin.manager.manager import BudgetManager
from litellm_budget_plugin.manager.sharing import provide
from litellm_budget_plugin.settings import GivenSettings
from litellm_budget_plugin.stores.memory import MemoryStore

__all__ = ["FixedClock", "MemoryBudget", "disabled"]

_NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_JOIN_SECONDS = 30
# Seconds before each collection. LiteLLM's threads report the chunks of a stream, and keep its objects until they have done so.
_WAITS = (0.0, 0.01, 0.05, 0.2, 0.5)
_numbers = itertools.count()


class FixedClock:
    """A clock that stands still until it is moved. Windows of a `MemoryBudget` begin and end by it."""

    def __init__(self, now: datetime = _NOON) -> None:
        """Begin at `now`, by default noon UTC on Thursday, 15 January 2026. Raises ValueError if `now` has no time zone."""
        self._now = _checked(now)

    @property
    def now(self) -> datetime:
        """The time, in UTC."""
        return self._now

    def advance(self, **parts: float) -> None:
        """Move forward by the arguments of a `timedelta`: `advance(days=1, hours=2)`. Raises ValueError for a step back."""
        self.move_to(self._now + timedelta(**parts))

    def move_to(self, moment: datetime) -> None:
        """Move forward to a moment with a time zone. Raises ValueError for an earlier moment, because windows do not go back."""
        if _checked(moment) < self._now:
            raise ValueError(f"the clock is at {self._now}, and cannot go back to {moment}")
        self._now = _checked(moment)

    @property
    def micros(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return (self._now - _EPOCH) // timedelta(microseconds=1)


def _checked(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: give one, as in datetime(2026, 1, 15, tzinfo=timezone.utc)")
    return moment.astimezone(timezone.utc)


class MemoryBudget:
    """Budgets on a new ledger in memory for the duration of a `with` block, in place of the application's budgets.

    `limits` are sentences for each user, `settings` the other settings by name. The environment is not read, and without `alert_at`
    there are no alerts. Calls of all threads and tasks of this process are held and charged here, whatever callbacks the application
    creates meanwhile. Blocks that are open at the same time in several threads keep the calls of their own threads apart, but not
    those of threads that these start. Leaving the block restores `litellm.callbacks`, and leaves no thread and no file.
    """

    def __init__(self, *limits: str, clock: FixedClock | None = None, **settings: Any) -> None:
        """Check the settings. Raises BudgetSettingsError for a bad setting, or a sentence that cannot be read."""
        self.clock = clock or FixedClock()
        """The clock by which windows begin and end."""
        self.refusals: list[BudgetRefused] = []
        """The refusals that callers got, in their order."""
        values = {"metrics": False, "alert_at": "off", **({"user_limits": list(limits)} if limits else {}), **settings}
        self._settings = GivenSettings(**values, store_url=SecretStr(f"memory://test-{next(_numbers)}"))
        self._callback: BudgetCallback | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        if self._callback is not None:
            raise RuntimeError("a MemoryBudget can be entered once; make a new one for each block")
        with ExitStack() as opened:
            worker = provide(self._settings.url, MemoryStore(now=lambda: self.clock.micros))
            opened.callback(worker.join, _JOIN_SECONDS)
            opened.callback(worker.abandon_all)
            self._callback = callback = BudgetCallback(self._settings)
            opened.callback(callback.close)
            self._ledger.refusal_listeners.append(self.refusals.append)
            opened.enter_context(override_callback(callback))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def callback(self) -> BudgetCallback:
        """The active callback. It is not in `litellm.callbacks`. Raises RuntimeError before the block is entered."""
        if self._callback is None:
            raise RuntimeError("a MemoryBudget is open only inside its with block")
        return self._callback

    @property
    def _ledger(self) -> BudgetLedger:
        return self.callback._ledger  # noqa: SLF001  # also in mode off

    @property
    def manager(self) -> BudgetManager:
        """The manager of the ledger, for everything else: blocking, credit, usage, ..."""
        return self.callback.manager

    def set_limits(self, subject: str, *sentences: str) -> None:
        """Replace all limits of a subject ("alice", "team:search", "project", ...) by these."""
        self.manager.set_limits(subject, *sentences)

    def spend(self, user: str, usd: str | float | Decimal) -> None:
        """Charge a user without a call, for example to bring the user close to a limit."""
        ledger = self._ledger
        principal, name = ledger.principal(user), "spent by the test"
        cost = charge_nanos(_amount(usd), "usd")
        ledger.ask(
            Settle(new_id(), ledger.project, principal.subjects, (name,), cost, name, defaults=principal.defaults)
        )

    def spent(self, subject: str) -> Decimal:
        """Return the charges of a subject in this block, in US dollars, over all windows. Calls that were dropped or cancelled are
        counted: while calls are in flight, this collects garbage first, for about a second at most.
        """
        for seconds in _WAITS:
            # A collection closes a generator, and the next one collects the objects that the generator held.
            if self._ledger.worker.live:
                time.sleep(seconds)
                gc.collect()
                self.callback.flush()
        return sum((row.spent for row in self._rows(subject)), Decimal(0))

    def remaining(self, subject: str, model: str | None = None) -> Remaining:
        """Return what a subject may still spend; see `BudgetManager.remaining`."""
        return self.manager.remaining(subject, model)

    def assert_spent(self, subject: str, usd: str | float | Decimal) -> None:
        """Raise AssertionError, with the charges in its message, unless `spent` is exactly this."""
        wanted, found = charge_nanos(_amount(usd), "usd"), charge_nanos(self.spent(subject))
        if found != wanted:
            raise AssertionError(
                "\n  ".join(
                    [
                        f"{subject} has spent ${usd_text(found)}, not ${usd_text(wanted)}",
                        *(f"charged: {_said(row)}" for row in self._rows(subject)),
                        *(f"others:  {_said(row)}" for row in self.manager.usage(by="user") if row.key != subject),
                        *(f"refused: {refusal}" for refusal in self.refusals),
                    ]
                )
            )

    def _rows(self, subject: str) -> list[UsageRow]:
        return [row for row in self.manager.usage(by="model", subject=subject) if row.calls or row.spent]


def _amount(usd: str | float | Decimal) -> str | float | Decimal:
    return usd.strip().removeprefix("$") if isinstance(usd, str) else usd


def _said(row: UsageRow) -> str:
    tokens = f"{row.input_tokens} input and {row.output_tokens} output tokens"
    return f"{row.key}: ${usd_text(charge_nanos(row.spent))} for {row.calls} {'call' if row.calls == 1 else 'calls'}, {tokens}"
