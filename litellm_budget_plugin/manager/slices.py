"""Slices: money that this process holds in advance on a networked ledger, and admits calls from without asking it.

A slice is a hold like any other, so the calls admitted under it cannot pass a limit. These calls exist in this process
only; when one settles, its charge comes out of the slice. A slice is released behind the charges of its calls, in their
order: money is never free while a charge on its way still needs it.

Amounts are nano-dollars, calls and tokens; times are seconds of a clock that goes on while the machine sleeps.
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
"""A slice is taken when a second call comes within this time, and released when no call came for as long."""
TIGHT_SECONDS = 1.0
"""How long no slice is tried again after there was no room for one."""
SHARE = 4
"""A call that wants more than this part of a slice gets a hold of its own; a slice of which less is left is replaced."""


class Key(NamedTuple):
    """Which calls a slice is for: those with these subjects and models, and by these limits."""

    subjects: tuple[Subject, ...]
    models: tuple[str, ...]
    defaults: tuple[Default, ...]


def awake_time() -> float:
    """Seconds that have passed, including sleep of the machine where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(slots=True)
class Slice:
    """One hold on the ledger. `granted` is the sum of what was charged, `lent` (what its calls may cost) and `free`."""

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

    `deliver` queues a command behind those that it was given before, without waiting. It is called under the lock, so that
    the release of a slice stays behind every charge that the slice pays.
    """

    def __init__(self, project: str, size: int, deliver: Callable[[Settle | Release], None]) -> None:
        self.project, self._size, self._deliver = project, size, deliver
        self.reset()

    def reset(self) -> None:
        """Start empty: at first, and in a forked child, where the slices belong to the parent."""
        self._lock = threading.Lock()
        self._open: dict[Key, Slice] = {}
        self._closing: dict[str, Slice] = {}
        self._of_hold: dict[str, Slice] = {}
        self._called_at: dict[Key, float] = {}
        self._wanted: dict[Key, Amounts] = {}
        self._not_before: dict[Key, float] = {}

    def reserve(self, command: Reserve) -> Granted | None:
        """Admit a call from memory; None if the ledger has to be asked. Afterwards `wanted` says whether a slice is needed."""
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
        """Whether a call that has ended was admitted here. If so, its charge is delivered with the slice that pays it, and the
        release of a closing slice if the call was its last.
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
        """Whether a call was admitted here."""
        return hold in self._of_hold

    @property
    def any(self) -> bool:
        """Whether some money is held in advance."""
        return bool(self._open)

    @property
    def wanted(self) -> bool:
        """Whether calls need a slice."""
        return bool(self._wanted)

    def unused_held(self) -> int:
        """The nano-dollars that are held and that no call uses."""
        with self._lock:
            return sum(found.free.usd for found in (*self._open.values(), *self._closing.values()))

    def take_wanted(self) -> tuple[Key, Amounts] | None:
        """The key of a slice that is needed, and what the call that needs it wants. Each is returned once."""
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
        """Want no slice with this key for TIGHT_SECONDS."""
        with self._lock:
            self._not_before[key] = awake_time() + TIGHT_SECONDS

    def retire(self, subjects: Iterable[Subject] | None = None) -> None:
        """Admit nothing more from the slices of these subjects, or from any. A slice is released with its last call."""
        wanted = None if subjects is None else set(subjects)
        self.retire_where(lambda found: wanted is None or not wanted.isdisjoint(found.key.subjects))

    def retire_where(self, test: Callable[[Slice], bool]) -> list[Slice]:
        """Retire the open slices for which `test` is true. Returns all slices that are then held, closing ones included."""
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
