"""Slices: money that this process holds in advance on a networked ledger. It admits calls from a slice without asking the ledger.

A slice is a normal hold, so the calls admitted under it cannot exceed a limit. The ledger does not know these calls. When one
settles, its charge comes out of the slice. A slice is released after the charges of its calls, in their order, so that no money is
free while an undelivered charge still needs it.

Amounts are nano-dollars, calls and tokens. Times are seconds of a clock that also runs while the machine sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from litellm_budget_plugin.core.accounts import NOTHING, Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Release, Reserve, Settle
from litellm_budget_plugin.core.holding import charge_of

WARM_SECONDS = 5.0
"""A slice is held when a second call comes within this time, and released when no call came for as long."""
TIGHT_SECONDS = 1.0
"""How long no slice is tried again after there was not enough left for one."""
SHARE = 4
"""A call that needs more than 1/SHARE of a slice gets its own hold. A slice with less than 1/SHARE left is replaced."""


class Key(NamedTuple):
    """The calls that a slice serves: those with these subjects, models and limits."""

    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    defaults: tuple[Default, ...]


def awake_time() -> float:
    """Return seconds of a monotonic clock that includes the machine's sleep, if the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(slots=True)
class Slice:
    """One hold on the ledger. `granted` is the sum of the charges, `lent` (the most that its open calls may cost) and `free`."""

    id: str
    key: Key
    granted: Amounts
    free: Amounts
    until: float
    used_at: float
    closing: bool = False
    lent: dict[str, Amounts] = field(default_factory=dict)


class Slices:
    """The slices of one project in this process. Threads may share it; nothing here waits for the ledger.

    `deliver` queues a command behind earlier ones, without waiting. It is called under the lock, so that the release of a slice
    stays behind every charge that the slice pays.
    """

    def __init__(self, project: str, size: int, deliver: Callable[[Settle | Release], None]) -> None:
        self.project, self._size, self._deliver = project, size, deliver
        self.reset()

    def reset(self) -> None:
        """Start empty. Called at the start, and in a forked child, where the slices belong to the parent."""
        self._lock = threading.Lock()
        self._open: dict[Key, Slice] = {}
        self._closing: dict[str, Slice] = {}
        self._of_hold: dict[str, Slice] = {}
        self._called_at: dict[Key, float] = {}
        self._wanted: dict[Key, Amounts] = {}
        self._not_before: dict[Key, float] = {}

    def reserve(self, command: Reserve) -> Granted | None:
        """Admit a call from memory; None if the ledger must be asked. Afterwards `wanted` says whether a slice is needed."""
        key, want, now = Key(command.subjects, command.models, command.defaults), command.want, awake_time()
        if want.usd * SHARE > self._size:
            return None
        with self._lock:
            if command.hold in self._of_hold:
                return Granted(command.hold, self._of_hold[command.hold].lent[command.hold])
            found = self._open.get(key)
            if found is None or now >= found.until:
                if now - self._called_at.get(key, -WARM_SECONDS) < WARM_SECONDS:
                    self._want(key, want, now)
                self._called_at[key] = now
                return None
            found.used_at = now
            if not _covers(found.free, want):
                self._want(key, want, now)
                return None
            found.free = found.free.minus(want)
            found.lent[command.hold] = want
            self._of_hold[command.hold] = found
            if found.free.usd * SHARE < found.granted.usd:
                self._want(key, want, now)
        return Granted(command.hold, want)

    def _want(self, key: Key, want: Amounts, now: float) -> None:
        if now >= self._not_before.get(key, 0.0):
            self._wanted[key] = want

    def finish(self, command: Settle | Release) -> bool:
        """Return whether a call that has ended was admitted here. If so, deliver its charge with the slice that pays it; if it was the
        last call of a closing slice, also release the slice.
        """
        with self._lock:
            found = self._of_hold.pop(command.hold, None)
            if found is None:
                return False
            lent, cost = found.lent.pop(command.hold), NOTHING
            if isinstance(command, Settle):
                cost = charge_of(command.cost, command.calls, command.input_tokens, command.output_tokens)
                self._deliver(replace(command, parent=found.id))
            left = found.free.plus(lent)
            found.free = left.minus(left.at_most(cost))
            self._release_if_done(found)
            return True

    def _release_if_done(self, found: Slice) -> None:
        if found.closing and not found.lent:
            self._closing.pop(found.id, None)
            self._deliver(Release(found.id, self.project))

    def holds(self, hold: str) -> bool:
        """Return whether a call was admitted here."""
        return hold in self._of_hold

    @property
    def any(self) -> bool:
        """Whether there is an open slice."""
        return bool(self._open)

    @property
    def wanted(self) -> bool:
        """Whether calls need a slice."""
        return bool(self._wanted)

    def unused_held(self) -> int:
        """Return the nano-dollars that slices hold and that no call uses."""
        with self._lock:
            return sum(found.free.usd for found in (*self._open.values(), *self._closing.values()))

    def take_wanted(self) -> tuple[Key, Amounts] | None:
        """Return the key of a needed slice, and the amounts of the call that needs it; None if none is needed. Each is returned once."""
        with self._lock:
            return self._wanted.popitem() if self._wanted else None

    def put(self, new: Slice) -> None:
        """Admit calls from this slice, in place of the one with the same key."""
        with self._lock:
            before = self._open.pop(new.key, None)
            self._open[new.key] = new
            if before is not None:
                self._retire(before)

    def postpone(self, key: Key) -> None:
        """Request no slice with this key for TIGHT_SECONDS."""
        with self._lock:
            self._not_before[key] = awake_time() + TIGHT_SECONDS

    def retire(self, subjects: Iterable[Subject] | None = None) -> None:
        """Admit no more calls from the slices of these subjects; None: of all. A slice is released when its last call ends."""
        wanted = None if subjects is None else set(subjects)
        self.retire_where(lambda found: wanted is None or not wanted.isdisjoint(found.key.subjects))

    def retire_where(self, test: Callable[[Slice], bool]) -> list[Slice]:
        """Retire the open slices for which `test` is true. Returns all slices that are still held, closing ones included."""
        with self._lock:
            for found in list(self._open.values()):
                if test(found):
                    self._retire(found)
            return [*self._open.values(), *self._closing.values()]

    def _retire(self, found: Slice) -> None:
        if self._open.get(found.key) is found:
            del self._open[found.key]
        found.closing = True
        self._closing[found.id] = found
        self._release_if_done(found)

    def forget_old(self) -> None:
        """Forget old calls and postponements."""
        now = awake_time()
        with self._lock:
            self._called_at = {key: at for key, at in self._called_at.items() if now - at < WARM_SECONDS}
            self._not_before = {key: at for key, at in self._not_before.items() if now < at}


def _covers(free: Amounts, want: Amounts) -> bool:
    return free[0] >= want[0] and free[1] >= want[1] and free[2] >= want[2]
