"""The background thread of a store: it settles dropped calls, delivers charges, renews holds and syncs.

A finalizer may call nothing but `submit`: garbage collection can run it inside any lock of any thread, and `submit` only
appends to a deque and to a SimpleQueue, which take no lock of ours.
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
"""How long charges for a networked store are gathered into one round trip."""


class PeriodicTask(Protocol):
    """Work that the worker's thread does about once a second, and whenever `wake` is called."""

    project: str

    def reset(self) -> None:
        """Forget everything: this is a forked child, and what there is belongs to the parent."""

    def run(self) -> None:
        """Do what is due. Raises BudgetStoreError if the store does not answer."""

    def retire(self) -> None:
        """The store is about to be closed: give back what is not in use."""

    def unused_held(self) -> int:
        """The nano-dollars that are held in advance and that no call uses."""


class StoreWorker:
    """Settles, renews and syncs for one store in this process. Threads and forked children may share it."""

    def __init__(
        self,
        store: Store,
        timeout: float,
        journal: Journal | None = None,
        most: int = 100_000,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """The caller uses it, until it calls `release`. `timeout` is in seconds; `most` charges may wait for the store; `on_close`
        is called once the store is closed.
        """
        self.live = LiveHolds()
        self.client = StoreClient(store, self.live.holds_money)
        self._remote = store.remote
        self._timeout = timeout
        self._on_close = on_close
        # A forked child keeps both: a store that the parent has closed is of no use there either.
        self.users = 1
        """How many ledgers use the store."""
        self._closed = False
        self._retention: dict[str, tuple[int, int]] = {}
        self._ended_runs: dict[str, EndedRuns] = {}
        self.delivery = Delivery(self.client.ask_all, journal, most, self._kept_for)
        self._tasks: list[PeriodicTask] = []
        self.gather_seconds = GATHER_SECONDS
        self.reset()
        _workers.add(self)

    def reset(self) -> None:
        """Start empty: at first, and in a forked child, where the waiting jobs and the live calls belong to the parent."""
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
        """Run a task no more."""
        # The thread may go through the list now.
        self._tasks = [each for each in self._tasks if each is not task]

    def set_retention(self, project: str, marks_kept: int, days_kept: int, runs_kept: int | None = None) -> None:
        """Sweep `project` once an hour, with these retentions (microseconds). `runs_kept` None: runs are kept for ever."""
        self._retention[project] = (marks_kept, max(days_kept, marks_kept + DAY))
        if runs_kept is not None:
            self._ended_runs[project] = EndedRuns(project, runs_kept, days_kept)

    def _kept_for(self, project: str) -> int | None:
        # A tenth less: a charge that is delivered must stay known until its delivery is.
        return self._retention[project][0] * 9 // 10 if project in self._retention else None

    def track(self, hold: str, live: LiveHold) -> None:
        """Renew `hold`, and keep the store open, until `untrack`."""
        self.live[hold] = live
        self.ensure_running()

    def untrack(self, hold: str) -> None:
        """The call of this hold is over."""
        self.live.pop(hold, None)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on the worker's thread. Safe in a finalizer."""
        self._jobs.append(job)
        self._signal.put(None)

    def wake(self) -> None:
        """Run the tasks now, without waiting for more charges to gather."""
        self._urgent.set()
        self._signal.put(None)
        self.ensure_running()

    def can_reclaim(self) -> bool:
        """Whether `reclaim` could free money: something waits to be settled, or calls of this process hold some."""
        return bool(self._jobs or self.delivery.waiting or self.live)

    def reclaim(self, timeout: float) -> None:
        """Settle what waits, so that it does not refuse the next call. A networked store has `timeout` seconds.

        This collects no garbage: for a large heap that would stop every thread, each time a user at a limit calls again.
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
        """Settle what waits, so that a read that follows counts it. Raises BudgetStoreError if a networked store cannot take it."""
        with self._working:
            self._run_jobs()
            if self._remote:
                self.delivery.run(self._timeout)

    def flush(self) -> None:
        """Settle and deliver everything that waits, and sync. Raises BudgetStoreError if the store still cannot take it."""
        with self._working:
            self._run_jobs()
            self.delivery.run(self._timeout)
        self.client.sync()

    def standing(self) -> Standing:
        """The present state, for metrics."""
        held, calls = self.live.totals()
        unused: dict[str, int] = defaultdict(int)
        for task in self._tasks:
            unused[task.project] += task.unused_held()
        in_journal = self.delivery.in_journal
        in_memory = self.delivery.waiting - in_journal
        runs_out = {watch.project: watch.runs_out for watch in self.client.watched}
        return Standing(self._closed, in_memory, in_journal, self.client.breaker.open, held, calls, unused, runs_out)

    def retain(self) -> bool:
        """One ledger more uses the store. False if it has been closed."""
        with self._starting:
            self.users += not self._closed
            return not self._closed

    def release(self) -> None:
        """One ledger fewer uses the store. The last one settles what waits and closes it; while calls go on, the thread closes it
        after the last call.
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
            # Processes that share a directory of metrics leave their last values in it.
            self.client.observing.refresh()

    def join(self, timeout: float) -> None:
        """After it was closed: return when its thread has ended, or after `timeout` seconds."""
        self._signal.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def abandon_all(self) -> None:
        """Nobody waits any more: settle the calls that go on as dropped, and close."""
        if self._closed:
            return
        for live in list(self.live.values()):
            live.abandon()
        self.live.clear()
        self.users = 0
        self._close()

    def ensure_running(self) -> None:
        """Start the thread unless it runs. It syncs what was committed within about a second, renews and delivers."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name="litellm-budget-worker", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # A limit of threads; the next call tries again.
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
        """Wait until there is something to do, and a moment longer: what others do meanwhile goes with it."""
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
                # One call that cannot be settled must not keep back the others.
                _logger.exception("a call could not be settled")
            except BaseException:
                self._jobs.appendleft(job)
                raise

    def _upkeep(self) -> None:
        if self.client.breaker.open:
            try:
                self.client.ask(Read(next(iter(self._retention), "default"), "probe", ""), self._timeout)
            except BudgetStoreError:
                # The charges that came since are not tried, and must not wait in memory only.
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
    # This renews the locks too: one that another thread of the parent held would stay locked here.
    for worker in list(_workers):
        worker.reset()


def _at_exit() -> None:
    for worker in list(_workers):
        worker.abandon_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
