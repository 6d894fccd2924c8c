"""Reports events on a ledger to observers, such as metrics. The error of an observer is logged and has no other effect.

Without an observer no event is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Protocol

from litellm_budget_plugin.core.commands import BaseCommand, Renew, Renewed, Settle, Settled, Sweep, Swept, is_claim
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.metrics.recent import Recent
from litellm_budget_plugin.metrics.standing import Source

_logger = logging.getLogger("litellm_budget_plugin")


class Observer(Protocol):
    """A receiver of events. Any thread may call its methods. Each event is reported once in a process."""

    def watch(self, source: Source) -> None:
        """Use `source` for the values of gauges."""

    def refresh(self) -> None:
        """Update gauges. Called about once a second."""

    def charged(self, command: Settle) -> None:
        """Count a charge that the ledger has acknowledged."""

    def refused(self, project: str, scope: str, reason: str, mode: str) -> None:
        """Count a call that was refused because of `scope` and `reason`, or in mode "shadow" would have been."""

    def reserved(self, project: str, source: str, seconds: float) -> None:
        """Count a call's request for a hold, which the "store" or a "slice" answered after `seconds`."""

    def store_failed(self, kind: str) -> None:
        """Count that the store did not answer ("unavailable") or failed ("error")."""

    def expired(self, project: str, seen_by: str, holds: int) -> None:
        """Count expired holds that a "renewal" or a "sweep" has found."""


class Observing:
    """The observers of one store in this process, by project. `holds_money` says whether a call in flight holds money under an id."""

    def __init__(self, holds_money: Callable[[str], bool]) -> None:
        self._holds_money = holds_money
        self._by_project: dict[str, Observer | None] = {}
        self._charges, self._expiries = Recent(), Recent()
        self.any = False
        """Whether there is an observer."""

    def add(self, project: str, observer: Observer | None, source: Source) -> None:
        """Report events of `project` to `observer`, and also charges of other projects that a journal delivers. None: events of `project`
        go to the observer that it already has, or to none.
        """
        if observer is None:
            self._by_project.setdefault(project, None)
            return
        self._by_project[project] = observer
        self.any = True
        with _harmless:
            observer.watch(source)

    def forget(self, project: str) -> None:
        """Forget that `project` has no observer, because its ledger was closed."""
        if self._by_project.get(project) is None:
            self._by_project.pop(project, None)

    def _of(self, project: str) -> Observer | None:
        if project in self._by_project:
            return self._by_project[project]
        return next(iter(self._all()), None)

    def _all(self) -> set[Observer]:
        return {observer for observer in list(self._by_project.values()) if observer is not None}

    def answered(self, command: BaseCommand[object], outcome: object) -> None:
        """Report the store's answer to a command."""
        if is_claim(command):
            return
        if isinstance(command, Settle):
            # A charge can be sent again after it was acknowledged: together with its batch, or after an interrupt.
            if isinstance(outcome, Settled) and self._charges.is_new(command.hold):
                self._tell(command.project, lambda observer: observer.charged(command))
        elif isinstance(command, Renew) and isinstance(outcome, Renewed):
            lost = [hold for hold in outcome.missing if self._holds_money(hold) and self._expiries.is_new(hold)]
            self._expired(command.project, "renewal", len(lost))
        elif isinstance(command, Sweep) and isinstance(outcome, Swept):
            self._expired(command.project, "sweep", outcome.expired)

    def _expired(self, project: str, seen_by: Literal["renewal", "sweep"], holds: int) -> None:
        if holds:
            self._tell(project, lambda observer: observer.expired(project, seen_by, holds))

    def failed(self, error: BudgetStoreError) -> None:
        """Report a failure of the store."""
        kind = "unavailable" if isinstance(error, BudgetStoreUnavailable) else "error"
        for observer in self._all():
            with _harmless:
                observer.store_failed(kind)

    def reserved(self, project: str, source: Literal["store", "slice"], seconds: float) -> None:
        """See `Observer.reserved`."""
        self._tell(project, lambda observer: observer.reserved(project, source, seconds))

    def refused(self, project: str, scope: str, reason: str, mode: str) -> None:
        """See `Observer.refused`."""
        self._tell(project, lambda observer: observer.refused(project, scope, reason, mode))

    def refresh(self) -> None:
        """See `Observer.refresh`."""
        for observer in self._all():
            with _harmless:
                observer.refresh()

    def _tell(self, project: str, what: Callable[[Observer], None]) -> None:
        observer = self._of(project)
        if observer is not None:
            with _harmless:
                what(observer)


class _Harmless:
    """Logs an observer's error, which must not reach the call: its money is already accounted for."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            _logger.error("a metric could not be updated", exc_info=error)
            return True
        return False


_harmless = _Harmless()
