"""The background thread of a store: it settles dropped calls, delivers charges, renews holds and syncs.

A finalizer may only call `submit`: garbage collection can run it while any thread holds any lock. `submit` only appends to a deque
and to a SimpleQueue, and so takes none of our locks.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol

from litellm_budget_plugin.core.commands import Read, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.manager.breaker import RETRY_SECONDS
from litellm_budget_plugin.manager.client import StoreClient
from litellm_budget_plugin.manager.delivery import Charge, Delivery
from litellm_budget_plugin.manager.ended_runs import EndedRuns
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.live_holds import LiveHold, LiveHolds
from litellm_budget_plugin.metrics.standing import Standing
from litellm_budget_plugin.stores.protocol import Store

_logger = logging.getLogger("litellm_budget_plugin")
_SYNC_SECONDS = 1.0
_SWEEP_SECONDS = 3600.0
GATHER_SECONDS = 0.05
"""How long charges for a networked store are gathered for one round trip."""


class PeriodicTask(Protocol):
    """A task that the worker's thread runs about once a second, and whenever `wake` is called."""

    project: str

    def reset(self) -> None:
        """Forget all state in a forked child, because it belongs to the parent."""

    def run(self) -> None:
        """Do the due work. Raises BudgetStoreError if the store does not answer."""

    def retire(self) -> None:
        """Release holds that are not in use, because the store will be closed."""

    def unused_held(self) -> int:
        """Return the nano-dollars that are held in advance and that no call uses."""


class StoreWorker:
    """The worker that settles, renews and syncs for one store in this process. Threads and forked children may share it."""

    def __init__(
        self,
        store: Store,
        timeout: float,
        journal: Journal | None = None,
        most: int = 100_000,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Count the caller as a user until it calls `release`. `timeout` is in seconds. At most `most` charges may wait for the store.
        `on_close` is called after the store was closed.
        """
        self.live = LiveHolds()
        self.client = StoreClient(store, self.live.holds_money)
        self._remote = store.remote
        self._timeout = timeout
        self._on_close = on_close
        # A forked child keeps both: it cannot use a store that the parent has closed.
        self.users = 1
        """The number of ledgers that use the store."""
        self._closed = False
        self._retention: dict[str, tuple[int, int]] = {}
        self._ended_runs: dict[str, EndedRuns] = {}
        self.delivery = Delivery(self.client.ask_all, journal, most, self._kept_for)
        self._tasks: list[PeriodicTask] = []
        self.gather_seconds = GATHER_SECONDS
        self.reset()
        _workers.add(self)

    def reset(self) -> None:
        """Start empty. Called at the start, and in a forked child, where the waiting jobs and the live calls belong to the parent."""
        self.live.reset()
        self._jobs: deque[Callable[[], None]] = deque()
        self._signal: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._urgent = threading.Event()
        self._working = threading.RLock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._swept_at = time.monotonic()
        self.delivery.reset()
        self.client.reset()
        for task in self._tasks:
            task.reset()

    def add_task(self, task: PeriodicTask) -> None:
        """Run a task from now on."""
        self._tasks.append(task)

    def remove_task(self, task: PeriodicTask) -> None:
        """Stop running a task."""
        # A new list, because the thread may be iterating over the old one.
        self._tasks = [each for each in self._tasks if each is not task]

    def set_retention(self, project: str, marks_kept: int, days_kept: int, runs_kept: int | None = None) -> None:
        """Sweep `project` once an hour, with these retentions (microseconds). `runs_kept` None: keep runs for ever."""
        self._retention[project] = (marks_kept, max(days_kept, marks_kept + DAY))
        if runs_kept is not None:
            self._ended_runs[project] = EndedRuns(project, runs_kept, days_kept)

    def _kept_for(self, project: str) -> int | None:
        # A tenth less, so that the store still knows an earlier delivery of a charge while it is delivered again.
        return self._retention[project][0] * 9 // 10 if project in self._retention else None

    def track(self, hold: str, live: LiveHold) -> None:
        """Renew `hold`, and keep the store open, until `untrack`."""
        self.live[hold] = live
        self.ensure_running()

    def untrack(self, hold: str) -> None:
        """Stop renewing `hold`, because its call has ended."""
        self.live.pop(hold, None)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on the worker's thread. Safe in a finalizer."""
        self._jobs.append(job)
        self._signal.put(None)

    def wake(self) -> None:
        """Run the tasks now, without gathering more charges."""
        self._urgent.set()
        self._signal.put(None)
        self.ensure_running()

    def can_reclaim(self) -> bool:
        """Return whether `reclaim` may free money: charges or jobs wait, or calls of this process hold money."""
        return bool(self._jobs or self.delivery.waiting or self.live)

    def reclaim(self, timeout: float) -> None:
        """Settle waiting jobs and charges, so that their holds do not cause a refusal of the next call. A networked store has `timeout` seconds.

        This does not collect garbage. With a large heap that would stop every thread each time a user at a limit calls again.
        """
        until = time.monotonic() + timeout
        if not self._working.acquire(timeout=timeout if self._remote else -1):
            return
        try:
            self._run_jobs()
            if self._remote:
                self.delivery.run(timeout, until)
        finally:
            self._working.release()

    def deliver(self, command: Charge, timeout: float) -> None:
        """Apply `command`: on a local store within `timeout` seconds, else in the background."""
        if self._remote:
            self.deliver_later(command)
            return
        try:
            self.client.ask(command, timeout)
        except BudgetStoreError as error:
            _logger.error("a charge waits for the store and will be delivered later: %s", error)
            self.deliver_later(command)
        except BudgetInputError as error:
            _logger.error("a charge cannot be stored, its hold is charged its input side when it expires: %s", error)
        self.ensure_running()

    def deliver_later(self, command: Charge) -> None:
        """Apply `command` in the background."""
        self.delivery.put(command)
        if self._closed:
            self.delivery.save()
            self.delivery.close()
            _logger.error(
                "a charge came after the ledger was closed; it waits in the journal, if there is one: %s", command
            )
            return
        self._signal.put(None)
        self.ensure_running()

    def settle_waiting(self) -> None:
        """Settle waiting charges, so that the next read counts them. Raises BudgetStoreError if a networked store cannot take them."""
        with self._working:
            self._run_jobs()
            if self._remote:
                self.delivery.run(self._timeout)

    def flush(self) -> None:
        """Settle and deliver all waiting charges, and sync. Raises BudgetStoreError if the store cannot take them."""
        with self._working:
            self._run_jobs()
            self.delivery.run(self._timeout)
        self.client.sync()

    def standing(self) -> Standing:
        """Return the present state, for metrics."""
        held, calls = self.live.totals()
        unused: dict[str, int] = defaultdict(int)
        for task in self._tasks:
            unused[task.project] += task.unused_held()
        in_journal = self.delivery.in_journal
        in_memory = self.delivery.waiting - in_journal
        runs_out = {watch.project: watch.runs_out for watch in self.client.watched}
        return Standing(self._closed, in_memory, in_journal, self.client.breaker.open, held, calls, unused, runs_out)

    def retain(self) -> bool:
        """Count one more ledger as a user of the store, and return True; return False if the store was closed."""
        with self._starting:
            self.users += not self._closed
            return not self._closed

    def release(self) -> None:
        """Count one ledger fewer as a user of the store. After the last one, settle waiting charges and close the store; while calls are in
        flight, the thread closes it after the last call.
        """
        with self._starting:
            self.users -= 1
        self._signal.put(None)
        if not self.live:
            self._close()

    def _close(self) -> None:
        if self._closed or self.users > 0:
            return
        for task in self._tasks:
            task.retire()
        with self._starting:
            if self._closed or self.users > 0:
                return
            self._closed = True
        try:
            self.flush()
        except BudgetStoreError as error:
            _logger.error("%d charges could not be delivered before closing: %s", self.delivery.waiting, error)
        self.delivery.close()
        self.client.store.close()
        self._on_close()
        if self.client.observing.any:
            # Processes that share a metrics directory leave their last values in it.
            self.client.observing.refresh()

    def join(self, timeout: float) -> None:
        """Wait until the thread of a closed worker has ended, or for `timeout` seconds."""
        self._signal.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def abandon_all(self) -> None:
        """Settle the calls in flight as dropped, and close, because no caller waits any more."""
        if self._closed:
            return
        for live in list(self.live.values()):
            live.abandon()
        self.live.clear()
        self.users = 0
        self._close()

    def ensure_running(self) -> None:
        """Start the thread unless it runs. It renews, delivers, and syncs commits within about a second."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name="litellm-budget-worker", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # The system's limit of threads is reached; the next call tries again.
                _logger.error("the worker cannot start, holds are not renewed until it can: %s", error)
                return
            self._thread = thread

    def _run(self) -> None:
        while not self._closed:
            self._wait()
            try:
                with self._working:
                    self._run_jobs()
                    self._upkeep()
                self.client.sync()
            except BudgetStoreError as error:
                _logger.error("the store does not answer; the worker tries again: %s", error)
            if self.client.observing.any:
                self.client.observing.refresh()
            if not self.users and not self.live:
                self._close()

    def _wait(self) -> None:
        """Wait until there is work, and a moment longer, so that further charges join the same round trip."""
        with contextlib.suppress(queue.Empty):
            self._signal.get(timeout=_SYNC_SECONDS)
            if self.client.breaker.open:
                time.sleep(RETRY_SECONDS)
            elif self._remote and self.users:
                self._urgent.wait(self.gather_seconds)
            self._urgent.clear()
            while True:
                self._signal.get_nowait()

    def _run_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except Exception:
                # One call that cannot be settled must not block the others.
                _logger.exception("a call could not be settled")
            except BaseException:
                self._jobs.appendleft(job)
                raise

    def _upkeep(self) -> None:
        if self.client.breaker.open:
            try:
                self.client.ask(Read(next(iter(self._retention), "default"), "probe", ""), self._timeout)
            except BudgetStoreError:
                # Newer charges are not tried now, and must not wait in memory only.
                self.delivery.save()
                raise
        self.delivery.run(self._timeout)
        for task in self._tasks:
            task.run()
        now = time.monotonic()
        if renewals := self.live.renewals():
            self.client.ask_all(renewals, self._timeout)
            self.live.renewed_at = now
        if now - self._swept_at >= _SWEEP_SECONDS:
            for project, (marks_kept, days_kept) in list(self._retention.items()):
                self.client.ask(Sweep(project, marks_kept, days_kept), self._timeout)
                if project in self._ended_runs:
                    self._ended_runs[project].forget(lambda command: self.client.ask(command, self._timeout))
            self._swept_at = now


_workers: weakref.WeakSet[StoreWorker] = weakref.WeakSet()


def _after_fork() -> None:
    # This also replaces the locks: one that another thread of the parent held would stay locked here.
    for worker in list(_workers):
        worker.reset()


def _at_exit() -> None:
    for worker in list(_workers):
        worker.abandon_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
