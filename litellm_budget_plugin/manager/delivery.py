"""Charges that wait for the store: delivered in batches, and kept in the journal while the store is unreachable."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Union

from litellm_budget_plugin.core.commands import Release, Settle
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.journal_file import JournalFile
from litellm_budget_plugin.stores.protocol import Outcome

_logger = logging.getLogger("litellm_budget_plugin")

Charge = Union[Settle, Release]
AskAll = Callable[[Sequence[Charge], float], list[Outcome]]
KeptFor = Callable[[str], Union[int, None]]

_BATCH = 200
_SAY_AT = 0.8
_CLAIM_SECONDS = 30.0
_LEAST = 0.5
"""The part of a batch's time that must be left for it to begin. A batch that is cut short would count as a failure of the store."""


class Delivery:
    """The charges and releases of this process that the store has not acknowledged yet, in their order.

    They wait in memory or, once the store has failed to take them, in the journal, which outlives this process. When `most` wait,
    `full` is true and no further call may start; charges of calls that have started are still accepted. `kept_for` returns how long
    (microseconds) a project's store remembers settled calls. An older entry may have been counted and forgotten, and becomes a dead
    letter.
    """

    def __init__(self, ask_all: AskAll, journal: Journal | None, most: int, kept_for: KeptFor) -> None:
        self._ask_all = ask_all
        self._journal = journal
        self.most = most
        self._kept_for = kept_for
        self.reset()

    def reset(self) -> None:
        """Start empty. Called at the start and in a forked child."""
        self._queue: deque[Charge] = deque()
        self._lock = threading.RLock()
        self._said = False
        self._claim_at = 0.0
        if self._journal is not None:
            self._journal.close()

    @property
    def waiting(self) -> int:
        """The number of charges and releases that wait, in memory and in the journal."""
        return len(self._queue) + self.in_journal

    @property
    def in_journal(self) -> int:
        """The number of charges and releases that wait in the journal."""
        return self._journal.waiting if self._journal is not None else 0

    @property
    def full(self) -> bool:
        """Whether at least `most` charges wait."""
        return self.waiting >= self.most

    def put(self, command: Charge) -> None:
        """Deliver the command in the next `run`. Takes no lock."""
        self._queue.append(command)

    def run(self, timeout: float, until: float = math.inf) -> None:
        """Deliver waiting charges: each batch within `timeout` seconds, and as many batches as fit before `until` (time.monotonic).

        Raises BudgetStoreError if the store cannot take them now. Then all of them are in the journal, or still in memory if the
        journal cannot be written.
        """
        with self._lock:
            try:
                self._claim()
                try:
                    self._deliver_journal(timeout, until)
                except OSError as error:
                    # Charges in memory must not wait for a disk.
                    _logger.error("a journal cannot be delivered, its charges wait: %s", error)
                self._deliver_queue(timeout, until)
                self._said = False
            except BudgetStoreError:
                self.save()
                raise

    def save(self) -> None:
        """Write the charges in memory into the journal."""
        with self._lock:
            commands = list(self._queue)
            if self._journal is not None and commands:
                try:
                    self._journal.keep(commands)
                except OSError as error:
                    _logger.error(
                        "the journal %s cannot be written, %d charges wait in memory only: %s",
                        self._journal.directory,
                        len(commands),
                        error,
                    )
                else:
                    self._taken(len(commands))
            self._say_how_full()

    def close(self) -> None:
        """Leave the journal to the next process."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()

    def _claim(self) -> None:
        now = time.monotonic()
        if self._journal is not None and now >= self._claim_at:
            self._claim_at = now + _CLAIM_SECONDS
            self._journal.claim()

    def _deliver_journal(self, timeout: float, until: float) -> None:
        while self._journal is not None and (file := self._journal.first()) is not None:
            left = until - time.monotonic()
            if left < timeout * _LEAST:
                return
            try:
                self._deliver_some(file, min(timeout, left))
            except BudgetStoreUnavailable:
                raise
            except BudgetStoreError as error:
                # The dead process may have had a key for another project. Its charges must not delay ours.
                if not self._journal.release(file):
                    raise
                _logger.error("%s cannot be delivered from here and is left to other processes: %s", file.path, error)

    def _deliver_some(self, file: JournalFile, timeout: float) -> None:
        found = file.next(_BATCH)
        lines = [line for line, _ in found]
        torn = [line for line in lines if not line.endswith(b"\n")]
        entries = [entry for _, entry in found if entry is not None]
        old = {id(entry) for entry in entries if self._too_old(entry.at, entry.command)}
        dead = [line for line, entry in found if line not in torn and (entry is None or id(entry) in old)]
        self._send([entry.command for entry in entries if id(entry) not in old], timeout)
        if torn:
            _logger.warning("%s: the last entry is incomplete; its call was not charged yet", file.path)
        if dead:
            try:
                path = file.add_dead_letters(dead)
            except OSError as error:
                raise BudgetStoreError(f"{file.path}: {len(dead)} entries cannot be set aside: {error}") from error
            _logger.error(
                "%d charges are damaged or older than the store remembers, and were set aside in %s; "
                "see docs/how-to/when-the-store-fails.md",
                len(dead),
                path,
            )
        file.passed(lines)

    def _too_old(self, at: int, command: Charge) -> bool:
        kept_for = self._kept_for(command.project)
        return kept_for is not None and time.time_ns() // 1000 - at >= kept_for

    def _deliver_queue(self, timeout: float, until: float) -> None:
        while self._queue and (left := until - time.monotonic()) >= timeout * _LEAST:
            commands = list(islice(self._queue, _BATCH))
            self._send(commands, min(timeout, left))
            self._taken(len(commands))

    def _taken(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()

    def _send(self, commands: list[Charge], timeout: float) -> None:
        # A charge whose window must be opened is applied after the others in its round trip. The release of the slice that
        # pays for it must come even later, so releases are sent last.
        self._send_together([command for command in commands if isinstance(command, Settle)], timeout)
        self._send_together([command for command in commands if isinstance(command, Release)], timeout)

    def _send_together(self, commands: Sequence[Charge], timeout: float) -> None:
        for command, outcome in zip(commands, self._ask_all(commands, timeout) if commands else ()):
            if isinstance(outcome, BudgetInputError):
                # Not kept: it would block every charge behind it.
                _logger.error(
                    "a charge cannot be stored, its hold is charged its input side when it expires: %s (%s)",
                    outcome,
                    command.hold,
                )

    def _say_how_full(self) -> None:
        waiting = self.waiting
        if waiting >= self.most:
            _logger.error(
                "%d charges are waiting for the store, as many as JOURNAL_LIMIT allows: calls are refused until it answers",
                waiting,
            )
        elif waiting >= _SAY_AT * self.most and not self._said:
            self._said = True
            _logger.error("%d charges are waiting for the store; from %d on, calls are refused", waiting, self.most)
