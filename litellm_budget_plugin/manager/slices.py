"""Slices: money that this process holds ahead on a networked ledger, and admits calls from without asking.

A slice is a hold like any other, so what is admitted under it cannot pass a limit. Its calls exist in this process only; when
they settle, their charge comes out of the slice. A slice goes back behind the charges of its calls, in their order: never is
money free that a charge on its way still needs.

Amounts are nano-dollars, calls and tokens; times are seconds of a clock that goes on while the machine sleeps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from litellm_budget_plugin.core.accounts import NOTHING, Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    MICROS,
    Accounts,
    AccountState,
    Command,
    Granted,
    Read,
    Release,
    Renew,
    Renewed,
    Reply,
    Reserve,
    Settle,
)
from litellm_budget_plugin.core.holding import charge_of
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.protocol import Outcome

_logger = logging.getLogger("litellm_budget_plugin")

WARM_SECONDS = 5.0
"""A slice is taken for whom a second call comes within this time, and goes back when none came for as long."""
TIGHT_SECONDS = 1.0
"""For how long nothing is held ahead for whom there was no room to."""
_SHARE = 4
"""A call that wants more than this part of a slice is held for by itself; a slice of which less is left is renewed."""
_SHRINK = 8
"""How much smaller a slice is tried, and how much larger the next one, when the ledger is short of room or is not."""
_MOST_CALLS = 1_000
"""How many calls a whole slice is for, where calls or tokens are limited as well."""
_AHEAD = 0.75
"""The part of its life on the ledger that a slice is used for: this process's clock may be slower than the ledger's."""

Key = tuple[tuple[Subject, ...], tuple[str, ...]]


def awake_time() -> float:
    """Seconds that have passed, those included that the machine slept where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(slots=True)
class Slice:
    """One hold on the ledger. `lent` is what its calls may cost, `free` what no call has: together with what was charged they
    are what was granted.
    """

    id: str
    key: Key
    granted: Amounts
    free: Amounts
    until: float
    used_at: float
    closing: bool = False
    lent: dict[str, Amounts] = field(default_factory=dict)


class Slices:
    """The slices of one project in this process. Threads may share it; nothing in it waits for the ledger but `take` and `look`.

    `tell` has a command delivered behind those that it was given before, without waiting. It is called under the lock: a
    slice's end, whoever it comes from, stays behind every charge that the slice pays.
    """

    def __init__(
        self,
        project: str,
        size: int,
        ttl: int,
        defaults: tuple[Default, ...],
        new_id: Callable[[], str],
        tell: Callable[[Settle | Release], None],
    ) -> None:
        self._project, self._size, self._ttl, self._defaults = project, size, ttl, defaults
        self._new_id, self._tell = new_id, tell
        self.begin()

    def begin(self) -> None:
        """Start with nothing: at first, and in a forked child, for the slices are the parent's."""
        self._lock = threading.Lock()
        self._open: dict[Key, Slice] = {}
        self._closing: dict[str, Slice] = {}
        self._of_hold: dict[str, Slice] = {}
        self._seen: dict[Key, float] = {}
        self._sizes: dict[Key, int] = {}
        self._wanted: dict[Key, Amounts] = {}
        self._not_before: dict[Key, float] = {}

    def reserve(self, command: Reserve) -> Granted | None:
        """Admit a call from memory; None if the ledger has to be asked. What `wanted` says afterwards is to be taken."""
        key, want, now = (command.subjects, command.models), command.want, awake_time()
        if want.usd * _SHARE > self._size:
            return None
        with self._lock:
            if command.hold in self._of_hold:
                return Granted(command.hold, self._of_hold[command.hold].lent[command.hold])
            opened = self._open.get(key)
            if opened is None or now >= opened.until:
                if now - self._seen.get(key, -WARM_SECONDS) < WARM_SECONDS:
                    self._want(key, want, now)
                self._seen[key] = now
                return None
            opened.used_at = now
            if not _covers(opened.free, want):
                self._want(key, want, now)
                return None
            opened.free = opened.free.minus(want)
            opened.lent[command.hold] = want
            self._of_hold[command.hold] = opened
            if opened.free.usd * _SHARE < opened.granted.usd:
                self._want(key, want, now)
        return Granted(command.hold, want)

    def _want(self, key: Key, want: Amounts, now: float) -> None:
        if now >= self._not_before.get(key, 0.0):
            self._wanted[key] = want

    @property
    def wanted(self) -> bool:
        """Whether `take` has something to do."""
        return bool(self._wanted)

    @property
    def any(self) -> bool:
        """Whether some money is held ahead."""
        return bool(self._open)

    @property
    def ahead(self) -> int:
        """What is held and no call uses, in nano-dollars."""
        with self._lock:
            return sum(opened.free.usd for opened in (*self._open.values(), *self._closing.values()))

    def holds(self, hold: str) -> bool:
        """Whether a call was admitted here."""
        return hold in self._of_hold

    def ended(self, command: Settle | Release) -> bool:
        """Whether a call that has ended was admitted here. Then the ledger is told of its charge, with the slice that pays it, and
        of the slice's own end if the call was its last.
        """
        with self._lock:
            found = self._of_hold.pop(command.hold, None)
            if found is None:
                return False
            lent, cost = found.lent.pop(command.hold), NOTHING
            if isinstance(command, Settle):
                cost = charge_of(command.cost, command.calls, command.input_tokens, command.output_tokens)
                self._tell(replace(command, parent=found.id))
            left = found.free.plus(lent)
            found.free = left.minus(left.at_most(cost))
            self._give_back(found)
            return True

    def _give_back(self, found: Slice) -> None:
        if found.closing and not found.lent:
            self._closing.pop(found.id, None)
            self._tell(Release(found.id, self._project))

    def retire(self, subjects: Iterable[Subject] | None = None) -> None:
        """Admit nothing more under the slices of these subjects, of all by default. What calls still hold goes back with the
        last of them.
        """
        wanted = None if subjects is None else set(subjects)
        with self._lock:
            keys = [key for key in self._open if wanted is None or wanted.intersection(key[0])]
            for key in keys:
                self._retire(self._open[key])

    def _retire(self, opened: Slice) -> None:
        if self._open.get(opened.key) is opened:
            del self._open[opened.key]
        opened.closing = True
        self._closing[opened.id] = opened
        self._give_back(opened)

    def take(self, ask: Callable[[Command], Reply]) -> None:
        """Hold ahead what calls have wanted, less of it near a limit. Raises BudgetStoreError if the ledger does not answer."""
        while self._wanted:
            with self._lock:
                key, want = self._wanted.popitem()
                size = min(self._size, self._sizes.get(key, self._size) * _SHRINK)
            while size >= want.usd * _SHARE and size > 0:
                opened = self._ask(key, want, size, ask)
                if opened is not None:
                    self._begin(opened)
                    break
                size //= _SHRINK
            else:
                self._not_before[key] = awake_time() + TIGHT_SECONDS
            self._sizes[key] = max(size, 1)

    def _ask(self, key: Key, want: Amounts, size: int, ask: Callable[[Command], Reply]) -> Slice | None:
        # Most calls cost much less than they might, so more of them than may fit do.
        calls = max(1, _MOST_CALLS * size // self._size)
        amounts = Amounts(size, want.calls * calls, want.tokens * calls)
        hold, asked_at = self._new_id(), awake_time()
        # `cheap`: granted only where 64 times as much is left, so that nobody else is refused for it.
        command = Reserve(hold, self._project, *key, amounts, self._ttl, self._defaults, cheap=True, patient=True)
        try:
            reply = ask(command)
        except BudgetStoreError:
            # The ledger may hold it although nobody knows, or may do so yet.
            self._tell(Release(hold, self._project))
            raise
        if not isinstance(reply, Granted):
            return None
        return Slice(hold, key, reply.amounts, reply.amounts, self._until(asked_at), asked_at)

    def _until(self, asked_at: float) -> float:
        return asked_at + self._ttl / MICROS * _AHEAD

    def _begin(self, opened: Slice) -> None:
        with self._lock:
            before = self._open.pop(opened.key, None)
            self._open[opened.key] = opened
            if before is not None:
                self._retire(before)

    def look(self, ask_all: Callable[[Sequence[Command]], list[Outcome]]) -> None:
        """Renew the slices, and retire those that nobody uses, that a block or limit has overtaken, or whose account has less
        left than they hold: somebody may be refused for them.

        Raises BudgetStoreError if the ledger does not answer; the slices are used until their time has come.
        """
        now = awake_time()
        with self._lock:
            self._seen = {key: at for key, at in self._seen.items() if now - at < WARM_SECONDS}
            self._not_before = {key: at for key, at in self._not_before.items() if now < at}
            self._sizes = {key: size for key, size in self._sizes.items() if key in self._open or key in self._seen}
            idle = [
                opened for opened in self._open.values() if now - opened.used_at >= WARM_SECONDS or now >= opened.until
            ]
            for opened in idle:
                self._retire(opened)
            held = {opened.id: opened for opened in (*self._open.values(), *self._closing.values())}
            keys = list(self._open)
        if not held:
            return
        subjects = sorted({subject for key in keys for subject in key[0]})
        reads = [Read(self._project, *subject, defaults=self._defaults) for subject in subjects]
        renewed, *read = ask_all([Renew(tuple(held), self._project, self._ttl), *reads])
        missing = set(renewed.missing) if isinstance(renewed, Renewed) else set()
        states = [state for reply in read if isinstance(reply, Accounts) for state in reply.accounts]
        with self._lock:
            for id_, opened in held.items():
                if id_ in missing:
                    self._retire(opened)
                else:
                    opened.until = self._until(now)
                    if not opened.closing and any(_overtaken(opened, state) for state in states):
                        self._retire(opened)
                        self._not_before[opened.key] = now + TIGHT_SECONDS


def _covers(free: Amounts, want: Amounts) -> bool:
    return free[0] >= want[0] and free[1] >= want[1] and free[2] >= want[2]


def _overtaken(opened: Slice, state: AccountState) -> bool:
    subjects, models = opened.key
    if (state.ref.scope, state.ref.subject) not in subjects or state.ref.model not in ("", *models):
        return False
    amount = opened.granted.of(state.ref.unit)
    return bool(amount) and (
        state.blocked or (state.limit is not None and state.limit - state.spent - state.held < amount)
    )
