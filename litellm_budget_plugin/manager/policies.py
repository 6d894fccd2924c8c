"""The present limits that are set outside the ledger. The budget file is read again when it changes."""

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
"""The interval at which the file is checked for changes."""
_SETTLED_SECONDS = 1.0
"""How long a changed file must stay unchanged before it counts, because it may be only partly written."""

_Stamp = tuple[int, int, int, int] | None


class Policies:
    """The policy of `settings`. It is read again within two seconds after its file changes. A file that cannot be accepted stops the start
    with BudgetSettingsError. Later, such a file logs an ERROR, and the previous policy still counts. Threads may share it.
    """

    def __init__(self, settings: BudgetSettings) -> None:
        self._settings = settings
        # Taken before the file is read, so that a change during the reading is seen the next time.
        self._stamp = self._seen = self._stamp_now()
        self._seen_at = time.monotonic()
        self._policy = settings.read_policy()
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._pid, self._lock = os.getpid(), threading.Lock()

    @property
    def _looking(self) -> threading.Lock:
        if self._pid != os.getpid():
            # In a forked child: the thread that holds the lock belongs to the parent.
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def current(self) -> Policy:
        """Return the policy that applies to a whole call, from its beginning to its end."""
        if self._settings.file is not None and time.monotonic() >= self._look_at:
            looking = self._looking
            if looking.acquire(blocking=False):
                try:
                    self._look()
                finally:
                    looking.release()
        return self._policy

    def look(self) -> Policy:
        """Return the policy that counts at this moment: that of the file or, while the file changes, the previous one."""
        with self._looking:
            self._look()
        return self._policy

    def _look(self) -> None:
        now = time.monotonic()
        self._look_at = now + _LOOK_SECONDS
        stamp = self._stamp_now()
        if stamp != self._seen:
            # A file that did not change shortly before this check does not need the full wait.
            age = 0.0 if stamp is None else time.time() - max(stamp[0], stamp[3]) / 1e9
            self._seen, self._seen_at = stamp, now - max(0.0, age)
        if stamp == self._stamp or now - self._seen_at < _SETTLED_SECONDS:
            return
        try:
            policy, mistake = self._settings.read_policy(), None
        except BudgetSettingsError as error:
            policy, mistake = self._policy, error
        if stamp != self._stamp_now():
            # The file was changed while it was read.
            return
        # In this order, so that a child that is forked in between reads the file again.
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
        # ctime also changes with the permissions, and cannot be set back.
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
