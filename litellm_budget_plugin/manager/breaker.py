"""The circuit breaker: while a networked store is unreachable, calls fail at once instead of each waiting for its time-out."""

from __future__ import annotations

import logging
import time

from litellm_budget_plugin.errors import BudgetStoreUnavailable

_logger = logging.getLogger("litellm_budget_plugin")

FAILURES = 3
"""The number of unanswered commands in a row that opens the breaker."""
RETRY_SECONDS = 1.0
"""The interval at which the worker asks an unreachable store."""
_ORPHANED = 5 * RETRY_SECONDS
"""The seconds without an attempt by the worker after which a call makes one: the worker's thread may not have started."""


class Breaker:
    """A counter of unanswered commands. It opens after FAILURES in a row; then only the worker asks, until the store answers.

    Used by many threads without a lock: each field is set in one step, and a count that is off by one does no harm.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._last: BudgetStoreUnavailable | None = None
        self._tried_at = 0.0
        self._since = 0.0

    @property
    def open(self) -> bool:
        """Whether calls must not ask the store."""
        return self._failures >= FAILURES

    def check(self) -> None:
        """Raise BudgetStoreUnavailable, without asking, while the store is known to be unreachable."""
        if self._failures < FAILURES:
            return
        now = time.monotonic()
        if now - self._tried_at >= _ORPHANED:
            self._tried_at = now
            return
        raise BudgetStoreUnavailable(
            f"the store has not answered for {now - self._since:.0f} s and is tried in the background: {self._last}"
        ) from self._last

    def failed(self, error: BudgetStoreUnavailable) -> None:
        """Count a command that stayed unanswered."""
        now = self._tried_at = time.monotonic()
        if not self._failures:
            self._since = now
        self._last = error
        self._failures += 1
        if self._failures == FAILURES:
            _logger.error("the store cannot be reached; calls no longer wait for it: %s", error)

    def worked(self) -> None:
        """Close the breaker, because the store has answered."""
        if not self._failures:
            return
        if self._failures >= FAILURES:
            _logger.warning("the store answers again, after %.0f s", time.monotonic() - self._since)
        self._failures = 0
        self._last = None
