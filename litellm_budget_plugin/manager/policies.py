"""The limits that are set outside of the ledger, as they stand now: the budget file is read again when it changes."""

from __future__ import annotations

import logging
import os
import threading
import time

from litellm_budget_plugin.errors import BudgetSettingsError
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.settings import BudgetSettings

_logger = logging.getLogger("litellm_budget_plugin")
_LOOK_SECONDS = 1.0
"""How often the file is looked at."""
_SETTLED_SECONDS = 1.0
"""For how long a changed file must stay as it is before it counts: it may be half of what somebody writes."""

_Stamp = tuple[int, int, int, int] | None


class Policies:
    """The policy of `settings`, read anew within two seconds when its file changes. A file that cannot be accepted stops the start
    with BudgetSettingsError; later the policy before it goes on counting, and an ERROR is logged. Threads may share it.
    """

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        # Taken before the file is read: what is written meanwhile is seen the next time.
        self._stamp = self._seen = self._stamp_now()
        self._seen_at = time.monotonic()
        self._policy = settings.read_policy()
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._pid, self._lock = os.getpid(), threading.Lock()

    @property
    def _looking(self) -> threading.Lock:
        if self._pid != os.getpid():
            # The thread that was looking is the parent's.
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def current(self) -> Policy:
        """The policy to judge a call by, from its beginning to its end."""
        if self._settings.file is not None and time.monotonic() >= self._look_at:
            looking = self._looking
            if looking.acquire(blocking=False):
                try:
                    self._look()
                finally:
                    looking.release()
        return self._policy

    def look(self) -> Policy:
        """The policy that counts at this moment: that of the file, or the one before while the file changes."""
        with self._looking:
            self._look()
        return self._policy

    def _look(self) -> None:
        now = time.monotonic()
        self._look_at = now + _LOOK_SECONDS
        stamp = self._stamp_now()
        if stamp != self._seen:
            # One that has stayed as it is since before this look need not be waited for.
            age = 0.0 if stamp is None else time.time() - max(stamp[0], stamp[3]) / 1e9
            self._seen, self._seen_at = stamp, now - max(0.0, age)
        if stamp == self._stamp or now - self._seen_at < _SETTLED_SECONDS:
            return
        try:
            policy, mistake = self._settings.read_policy(), None
        except BudgetSettingsError as error:
            policy, mistake = self._policy, error
        if stamp != self._stamp_now():
            # Somebody has begun to write while it was read.
            return
        # In this order: a child that is forked in between reads the file again.
        self._policy = policy
        self._stamp = stamp
        if mistake is not None:
            _logger.error("the limits stay as they were, because the budget file has a mistake: %s", mistake)
        else:
            _logger.info("the budget file %s was read again", self._settings.file)

    def _stamp_now(self) -> _Stamp:
        if self._settings.file is None:
            return None
        try:
            found = os.stat(self._settings.file)
        except OSError:
            return None
        # The last one changes with the permissions, too, and cannot be set back.
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
