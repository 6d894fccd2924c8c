"""One command at a time: the lock of the stores that live inside this process, and what happens to it at a fork."""

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


class Guard:
    """A lock with a time-out that refuses to be entered twice by one thread and never stays locked after an interrupt."""

    __slots__ = ("_inside", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False

    def run(self, name: str, seconds: float, work: Callable[..., T], *args: object) -> T:
        """`work(*args)` while nobody else is inside.

        Raises BudgetStoreUnavailable, naming the store by `name`, if that takes longer than `seconds` or if this
        thread is inside already (a finalizer or signal handler that interrupted a command).
        """
        lock = self._lock
        # A KeyboardInterrupt can fall between any two calls. The lock is one that knows its owner, so that giving it
        # back is one call, right whether the interrupt came before or after it was taken.
        try:
            if not lock.acquire(timeout=max(0.0, seconds)):
                raise BudgetStoreUnavailable(f"{name}: other threads kept it busy for {seconds:g} s; ask again")
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

    def pause(self) -> bool:
        """Keep everybody out until `resume`. False if somebody stays inside for FORK_WAIT, or this thread is."""
        if not self._lock.acquire(timeout=FORK_WAIT):
            return False
        if self._inside:
            self._lock.release()
        return not self._inside

    def resume(self) -> None:
        """End a `pause` that was granted."""
        self._lock.release()

    def renew(self) -> None:
        """Forget who was inside: in a forked child, the other threads are gone."""
        self._lock = threading.RLock()
        self._inside = False


class Forking(Protocol):
    """A store that has something to do around a fork."""

    def before_fork(self) -> None:
        """In the parent, before."""

    def after_fork(self, in_child: bool) -> None:
        """In the parent and in the child, after."""


_stores: WeakSet[Forking] = WeakSet()


def watch_forks(store: Forking) -> None:
    """Call the store's methods around every fork for as long as it lives."""
    _stores.add(store)


def _before() -> None:
    for store in list(_stores):
        store.before_fork()


def _after_in_parent() -> None:
    for store in list(_stores):
        store.after_fork(in_child=False)


def _after_in_child() -> None:
    for store in list(_stores):
        store.after_fork(in_child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
