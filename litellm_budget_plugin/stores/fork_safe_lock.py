"""The lock of the stores inside this process, which admits one command at a time, and its behaviour at a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar
from weakref import WeakSet

from litellm_budget_plugin.errors import BudgetStoreUnavailable

T = TypeVar("T")

FORK_WAIT = 5.0
"""How long (seconds) a fork waits for another thread's command to end."""


class ForkSafeLock:
    """A lock with a time-out that refuses to be entered twice by one thread and never stays locked after an interrupt."""

    __slots__ = ("__weakref__", "_inside", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False

    def run(self, name: str, seconds: float, work: Callable[..., T], *args: object) -> T:
        """Return `work(*args)`, called while no other thread is inside.

        Raises BudgetStoreUnavailable, naming the store by `name`, if waiting takes longer than `seconds` or if this
        thread is inside already (a finalizer or signal handler that interrupted a command).
        """
        lock = self._lock
        # A KeyboardInterrupt can arrive between any two calls. The lock knows its owner, so that one call releases it
        # correctly, whether the interrupt came before or after it was taken.
        try:
            if not lock.acquire(timeout=max(0.0, seconds)):
                raise BudgetStoreUnavailable(f"{name}: other threads kept it busy for {seconds:g} s; try again")
            if self._inside:
                raise BudgetStoreUnavailable(f"{name}: called by a finalizer or signal handler inside its own command")
            self._inside = True
            try:
                return work(*args)
            finally:
                self._inside = False
        finally:
            try:
                lock.release()
            except RuntimeError:  # never taken
                pass

    def before_fork(self) -> bool:
        """Keep other threads out until `after_fork`. Returns False if a thread stays inside for FORK_WAIT, or if this thread is inside."""
        return self._lock.acquire(timeout=FORK_WAIT) and not self._inside

    def after_fork(self, in_child: bool) -> None:
        """Admit other threads again. The child has no other threads: there, forget which one was inside."""
        if in_child:
            self._lock, self._inside = threading.RLock(), False
            return
        try:
            self._lock.release()
        except RuntimeError:  # never taken: another thread stayed inside
            pass


class Forking(Protocol):
    """An object with something to do around a fork."""

    def before_fork(self) -> object:
        """Called in the parent before the fork."""

    def after_fork(self, in_child: bool) -> None:
        """Called in the parent and in the child after the fork."""


_stores: WeakSet[Forking] = WeakSet()


def watch_forks(store: Forking) -> None:
    """Call the store's methods around every fork while the store exists."""
    _stores.add(store)


def _each(call: Callable[[Forking], object]) -> None:
    for store in list(_stores):
        call(store)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _each(lambda store: store.before_fork()),
        after_in_parent=lambda: _each(lambda store: store.after_fork(False)),
        after_in_child=lambda: _each(lambda store: store.after_fork(True)),
    )
