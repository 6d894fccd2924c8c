"""The one background thread of a store: it settles what was dropped, delivers charges, renews holds, syncs.

Nothing but `later` may be called from a finalizer: garbage collection can run it inside any lock of any thread, so it
only appends to a deque and to a SimpleQueue, which take no lock of ours.
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
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from litellm_budget_plugin.core.commands import Read, Renew, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.manager.breaker import RETRY_SECONDS
from litellm_budget_plugin.manager.client import StoreClient
from litellm_budget_plugin.manager.delivery import Charge, Delivery
from litellm_budget_plugin.manager.ended_runs import EndedRuns
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.metrics.standing import Standing
from litellm_budget_plugin.stores.protocol import Store

_logger = logging.getLogger("litellm_budget_plugin")
_SYNC_SECONDS = 1.0
_SWEEP_SECONDS = 3600.0
_RENEWAL_BATCH = 500
GATHER_SECONDS = 0.05
"""How long charges for a networked store are gathered into one round trip."""


class LiveHold(NamedTuple):
    """An attempt that is still going on, named by its hold's id, whether it holds money or not. `abandon` settles it as
    dropped; it is called at interpreter exit. `ttl` is in microseconds; None if there is nothing to renew. `held` is in
    nano-dollars.
    """

    project: str
    ttl: int | None
    abandon: Callable[[], None]
    held: int = 0


class Attended(Protocol):
    """Something that the settler's thread looks after."""

    def begin(self) -> None:
        """In a forked child: forget what is the parent's."""

    def attend(self) -> None:
        """Do what is to be done now. Raises BudgetStoreError if the store does not answer."""

    def end(self) -> None:
        """The store is about to be let go of."""

    def ahead(self) -> tuple[str, int]:
        """The project, and the nano-dollars that are held ahead for it and no call uses."""


class Settler:
    """Settles, renews and syncs for one store in this process. Threads and forks may share it."""

    def __init__(
        self,
        store: Store,
        timeout: float,
        journal: Journal | None = None,
        most: int = 100_000,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`ended` is called when the store has been let go of."""
        self.client = StoreClient(store, self._holds)
        self._remote = store.remote
        self._timeout = timeout
        self._ended = ended
        # Also in a child: a store that the parent had let go of is no use there either.
        self._closed = False
        self._retention: dict[str, tuple[int, int]] = {}
        self._ended_runs: dict[str, EndedRuns] = {}
        self.delivery = Delivery(self.client.ask_all, journal, most, self._kept_for)
        self._attended: list[Attended] = []
        self.gather = GATHER_SECONDS
        self.begin()
        _settlers.add(self)

    def begin(self) -> None:
        """Start with nothing: at first, and in a forked child, for what waits and goes on belongs to the parent."""
        self._jobs: deque[Callable[[], None]] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._live: dict[str, LiveHold] = {}
        self._working = threading.RLock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._renewed_at = self._swept_at = time.monotonic()
        self.delivery.begin()
        self.client.begin()
        for attended in self._attended:
            attended.begin()

    def attend(self, attended: Attended) -> None:
        """Look after something, once in about a second and whenever `hurry` is called."""
        self._attended.append(attended)

    def hurry(self) -> None:
        """There is something to do that should not wait for other things to come along."""
        self._hurry.set()
        self._wake.put(None)
        self.keep_synced()

    def _kept_for(self, project: str) -> int | None:
        # Not to the last moment: what is delivered must be remembered until it is known to have been.
        return self._retention[project][0] * 9 // 10 if project in self._retention else None

    def keep(self, project: str, marks_kept: int, days_kept: int, runs_kept: int | None = None) -> None:
        """Sweep `project` now and then, with these retentions (microseconds). `runs_kept` None: runs are kept for ever."""
        self._retention[project] = (marks_kept, max(days_kept, marks_kept + DAY))
        if runs_kept is not None:
            self._ended_runs[project] = EndedRuns(project, runs_kept, days_kept)

    def track(self, hold: str, live: LiveHold) -> None:
        """Renew `hold` until `untrack`."""
        self._live[hold] = live
        self.keep_synced()

    def untrack(self, hold: str) -> None:
        """The hold's call is over."""
        self._live.pop(hold, None)

    def _holds(self, hold: str) -> bool:
        live = self._live.get(hold)
        return live is not None and live.held > 0

    def later(self, job: Callable[[], None]) -> None:
        """Have `job` run on the settler's thread. Safe in a finalizer."""
        self._jobs.append(job)
        self._wake.put(None)

    def may_free(self) -> bool:
        """Whether `free` could give money back: something waits to be settled, or calls of this process hold some."""
        return bool(self._jobs or self.delivery.waiting or self._live)

    def free(self, timeout: float) -> None:
        """Settle what waits: it must not refuse the next call. A networked store has `timeout` seconds.

        Collects no garbage, which would hold up every thread for as long as the application's heap is large, whenever
        somebody at a limit calls again.
        """
        until = time.monotonic() + timeout
        if not self._working.acquire(timeout=timeout if self._remote else -1):
            return
        try:
            self._drain()
            if self._remote:
                self.delivery.run(timeout, until)
        finally:
            self._working.release()

    def deliver(self, command: Charge, timeout: float) -> bool:
        """Have the store apply `command`: a local one within `timeout` seconds, a networked one in the background, as one
        that cannot do it now. Returns whether the command is in the ledger now.
        """
        if self._remote:
            self.deliver_later(command)
            return False
        try:
            self.client.ask(command, timeout)
        except BudgetStoreError as error:
            _logger.error("a charge waits for the store and will be delivered later: %s", error)
            self.deliver_later(command)
            return False
        except BudgetInputError as error:
            _logger.error("a charge cannot be stored, its hold is charged the floor when it expires: %s", error)
            return False
        self.keep_synced()
        return True

    def deliver_later(self, command: Charge) -> None:
        """Have the store apply `command` as soon as it can."""
        self.delivery.put(command)
        if self._closed:
            self.delivery.keep()
            self.delivery.close()
            _logger.error(
                "a charge came after the ledger was closed; it waits in the journal, if there is one: %s", command
            )
            return
        self._wake.put(None)
        self.keep_synced()

    def flush(self) -> None:
        """Settle and deliver everything that waits. Raises BudgetStoreError if the store still cannot take it."""
        with self._working:
            self._drain()
            self.delivery.run(self._timeout)
        self.client.sync()

    def standing(self) -> Standing:
        """How things stand, for metrics."""
        held: dict[str, int] = {}
        calls: dict[str, int] = {}
        for live in list(self._live.values()):
            if live.held:
                held[live.project] = held.get(live.project, 0) + live.held
                calls[live.project] = calls.get(live.project, 0) + 1
        ahead: dict[str, int] = {}
        for project, nanos in (attended.ahead() for attended in self._attended):
            ahead[project] = ahead.get(project, 0) + nanos
        in_journal = self.delivery.in_journal
        return Standing(
            self._closed, self.delivery.waiting - in_journal, in_journal, self.client.breaker.open, held, calls, ahead
        )

    def settle_waiting(self) -> None:
        """Settle what waits, so that a read that follows counts it; does not sync. Raises BudgetStoreError if a networked
        store cannot take it.
        """
        with self._working:
            self._drain()
            if self._remote:
                self.delivery.run(self._timeout)

    def leave(self) -> None:
        """Nobody needs the store any more but the calls that go on; `finish` follows."""
        self._closing = True

    def stay(self) -> bool:
        """Somebody needs the store again. False if it has been let go of."""
        with self._starting:
            self._closing = False
            return not self._closed

    def close(self) -> None:
        """Settle what waits, then let go of the store; while calls still go on, the thread does so after the last."""
        self.leave()
        self.finish()

    def finish(self) -> None:
        """Do what `close` does, unless somebody has decided to `stay`."""
        self._wake.put(None)
        if not self._live:
            self._finish()

    def _finish(self) -> None:
        for attended in self._attended:
            attended.end()
        with self._starting:
            if self._closed or not self._closing:
                return
            self._closed = True
        try:
            self.flush()
        except BudgetStoreError as error:
            _logger.error("%d charges could not be delivered before closing: %s", self.delivery.waiting, error)
        self.delivery.close()
        self.client.store.close()
        self._ended()
        if self.client.observing.any:
            # Where processes share a directory of metrics, what is in it outlives this one.
            self.client.observing.refresh()

    def keep_synced(self) -> None:
        """See to it that the thread runs: it syncs what was committed within about a second, renews and delivers."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name="litellm-budget-settler", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # A limit of threads; the next call tries again.
                _logger.error("the settler cannot start, holds are not renewed until it can: %s", error)
                return
            self._thread = thread

    def _drain(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except Exception:
                # One odd call must not keep back the settlement of every other.
                _logger.exception("a call could not be settled")
            except BaseException:
                self._jobs.appendleft(job)
                raise

    def _run(self) -> None:
        while not self._closed:
            self._wait()
            try:
                with self._working:
                    self._drain()
                    self._upkeep()
                self.client.sync()
            except BudgetStoreError as error:
                _logger.error("the store does not answer; the settler tries again: %s", error)
            if self.client.observing.any:
                self.client.observing.refresh()
            if self._closing and not self._live:
                self._finish()

    def _wait(self) -> None:
        """Until there is something to do. What others do in the same moment comes along."""
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=_SYNC_SECONDS)
            if self.client.breaker.open:
                time.sleep(RETRY_SECONDS)
            elif self._remote and not self._closing:
                self._hurry.wait(self.gather)
            self._hurry.clear()
            while True:
                self._wake.get_nowait()

    def _upkeep(self) -> None:
        if self.client.breaker.open:
            try:
                self.client.ask(Read(next(iter(self._retention), "default"), "probe", ""), self._timeout)
            except BudgetStoreError:
                # What came along since is not tried, and must not wait in memory only.
                self.delivery.keep()
                raise
        self.delivery.run(self._timeout)
        for attended in self._attended:
            attended.attend()
        now = time.monotonic()
        renewed = [(hold, live.project, live.ttl) for hold, live in list(self._live.items()) if live.ttl is not None]
        if renewed and now - self._renewed_at >= min(ttl for *_, ttl in renewed) / 3e6:
            self.client.ask_all(_renewals(renewed), self._timeout)
            self._renewed_at = now
        if now - self._swept_at >= _SWEEP_SECONDS:
            for project, (marks_kept, days_kept) in list(self._retention.items()):
                self.client.ask(Sweep(project, marks_kept, days_kept), self._timeout)
                if project in self._ended_runs:
                    self._ended_runs[project].forget(lambda command: self.client.ask(command, self._timeout))
            self._swept_at = now

    def end(self) -> None:
        """The interpreter ends: calls still going on are settled as dropped."""
        if self._closed:
            return
        for live in list(self._live.values()):
            live.abandon()
        self._live.clear()
        self.close()


def _renewals(live: list[tuple[str, str, int]]) -> list[Renew]:
    groups: dict[tuple[str, int], list[str]] = {}
    for hold, project, ttl in live:
        groups.setdefault((project, ttl), []).append(hold)
    return [
        Renew(tuple(holds[first : first + _RENEWAL_BATCH]), project, ttl)
        for (project, ttl), holds in groups.items()
        for first in range(0, len(holds), _RENEWAL_BATCH)
    ]


_settlers: weakref.WeakSet[Settler] = weakref.WeakSet()


def _after_fork() -> None:
    # The parent's locks are renewed with the rest: one that another thread held would stay locked here.
    for settler in list(_settlers):
        settler.begin()


def _at_exit() -> None:
    for settler in list(_settlers):
        settler.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
