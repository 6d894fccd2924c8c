"""The calls of one process that wait for money held by others, in the order of their arrival.

There are no locks in it: a child may be forked, and a caller may be interrupted, between any two steps, each of which is one operation
on a list or a dictionary. What a race can do is let a call try too early, which is harmless: only the ledger holds.
"""

from __future__ import annotations

import os
import time
from bisect import insort
from collections.abc import Callable, Iterable
from itertools import count
from operator import attrgetter

from litellm_budget_plugin.core.accounts import Amounts, Ref, Subject
from litellm_budget_plugin.core.models import covers_any

MOST_WAITING = 500
"""How many calls of one ledger may wait in one process; further ones are refused at once."""
_number = attrgetter("number")


class Waiter:
    """One waiting call: what it counts against, how much it wants, the account that refused it last, and until when it waits (of
    time.monotonic). `wake` and `gone` may be called from any thread; `gone` says that nobody waits any more, and nobody has said so.
    """

    __slots__ = ("account", "gone", "models", "number", "subjects", "until", "wake", "want")

    def __init__(
        self, subjects: tuple[Subject, ...], models: tuple[str, ...], want: Amounts, account: Ref, until: float
    ) -> None:
        self.subjects = subjects
        self.models = models
        self.want = want
        self.account = account
        self.until = until
        self.number = -1
        self.wake: Callable[[], None] = _nothing
        self.gone: Callable[[], bool] = _still_here

    @property
    def seconds_left(self) -> float:
        """How long it still waits."""
        return self.until - time.monotonic()


def _nothing() -> None:
    """Nobody waits yet."""


def _still_here() -> bool:
    """A thread that waits takes itself out of the line."""
    return False


class WaitingLine:
    """All waiting calls of a ledger, each in the line of the subject whose account refused it last.

    A call may not try while one that came earlier waits for an account that the call counts against, too: else small calls would
    overtake a large one for ever. Each waits for a bounded time, so nobody stands in the way for longer than that.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lines: dict[Subject, list[Waiter]] = {}
        self._numbers = count()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            # A forked child: those who wait belong to the parent.
            self._reset()

    def __len__(self) -> int:
        self._check_process()
        return sum(map(len, list(self._lines.values())))

    def ahead(
        self, subjects: tuple[Subject, ...], models: tuple[str, ...], want: Amounts, number: int | None = None
    ) -> Ref | None:
        """The account that somebody waits for who came before `number` (None: somebody who is not there yet), and that a call like
        this one would take money from.
        """
        self._check_process()
        now = time.monotonic()
        for subject in subjects:
            for other in list(self._lines.get(subject, ())):
                if number is not None and other.number >= number:
                    break
                if other.gone():
                    self._take_out(other)
                    continue
                # A call that was dropped while it waited is noticed late, and must not hold up the others.
                if other.until > now and want.of(other.account.unit) and covers_any(other.account.model, models):
                    return other.account
        return None

    def enter(self, waiter: Waiter) -> None:
        """Wait at the end of the line."""
        waiter.number = next(self._numbers)
        self._line_of(waiter).append(waiter)

    def move(self, waiter: Waiter, account: Ref) -> None:
        """Another account has refused the waiter; it keeps its place in the order."""
        if (account.scope, account.subject) != (waiter.account.scope, waiter.account.subject):
            self._take_out(waiter)
            waiter.account = account
            insort(self._line_of(waiter), waiter, key=_number)
        waiter.account = account

    def leave(self, waiter: Waiter) -> None:
        """The call has its money, is refused, or was dropped: the next one may try. May be called twice."""
        self._take_out(waiter)
        self.freed([Subject(waiter.account.scope, waiter.account.subject)])

    def freed(self, subjects: Iterable[Subject]) -> None:
        """A hold on these subjects has ended: wake the call that waits longest for each account."""
        if not self._lines:
            return
        self._check_process()
        for subject in subjects:
            woken: set[Ref] = set()
            for waiter in list(self._lines.get(subject, ())):
                if waiter.account not in woken and waiter.seconds_left > 0 and not waiter.gone():
                    woken.add(waiter.account)
                    waiter.wake()

    def wake_all(self) -> None:
        """Have every waiting call look again."""
        for line in list(self._lines.values()):
            for waiter in list(line):
                waiter.wake()

    def _line_of(self, waiter: Waiter) -> list[Waiter]:
        return self._lines.setdefault(Subject(waiter.account.scope, waiter.account.subject), [])

    def _take_out(self, waiter: Waiter) -> None:
        subject = Subject(waiter.account.scope, waiter.account.subject)
        line = self._lines.get(subject)
        if line is None:
            return
        try:
            line.remove(waiter)
        except ValueError:
            return
        if not line:
            self._lines.pop(subject, None)
