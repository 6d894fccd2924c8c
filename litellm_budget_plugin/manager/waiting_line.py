"""The calls of one process that wait for money held by others, in the order of their arrival.

It uses no locks: a fork or an interrupt may come between any two steps, and each step is one operation on a list or a dictionary.
A race can only let a call try too early. That is harmless, because only the ledger grants holds.
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
    """One waiting call: the subjects and models that it counts against, the amounts that it wants, the account that refused it last, and
    the end of its wait (time.monotonic). `wake` and `gone` may be called from any thread. `gone` returns True if the caller stopped
    waiting without leaving the line.
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
        """The seconds that it still waits."""
        return self.until - time.monotonic()


def _nothing() -> None:
    """Do nothing, because no caller waits yet."""


def _still_here() -> bool:
    """Return False: a waiting thread leaves the line itself."""
    return False


class WaitingLine:
    """All waiting calls of a ledger, each in the line of the subject whose account refused it last.

    A call may not try while an earlier one waits for an account that the call also counts against. Otherwise small calls could
    overtake a large one for ever. Each call waits for a bounded time, so it blocks others no longer than that.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lines: dict[Subject, list[Waiter]] = {}
        self._numbers = count()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            # In a forked child: the waiting calls belong to the parent.
            self._reset()

    def __len__(self) -> int:
        self._check_process()
        return sum(map(len, list(self._lines.values())))

    def ahead(
        self, subjects: tuple[Subject, ...], models: tuple[str, ...], want: Amounts, number: int | None = None
    ) -> Ref | None:
        """Return an account for which a call ahead of `number` waits, and from which a call with these arguments would take money; None if
        there is none. `number` None stands for a call that is not in the line yet.
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
                # A call that was dropped while it waited is noticed late, and must not delay the others.
                if other.until > now and want.of(other.account.unit) and covers_any(other.account.model, models):
                    return other.account
        return None

    def enter(self, waiter: Waiter) -> None:
        """Add a waiter at the end of the line."""
        waiter.number = next(self._numbers)
        self._line_of(waiter).append(waiter)

    def move(self, waiter: Waiter, account: Ref) -> None:
        """Move the waiter to the line of another account, which has refused it. It keeps its place in the order."""
        if (account.scope, account.subject) != (waiter.account.scope, waiter.account.subject):
            self._take_out(waiter)
            waiter.account = account
            insort(self._line_of(waiter), waiter, key=_number)
        waiter.account = account

    def leave(self, waiter: Waiter) -> None:
        """Take out a waiter that got its money, was refused or was dropped, and wake the next one. May be called twice."""
        self._take_out(waiter)
        self.freed([Subject(waiter.account.scope, waiter.account.subject)])

    def freed(self, subjects: Iterable[Subject]) -> None:
        """Wake the call that has waited longest for each account of these subjects, because a hold on them has ended."""
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
        """Wake every waiting call, so that it tries again."""
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
