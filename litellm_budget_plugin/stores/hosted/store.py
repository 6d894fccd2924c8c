"""The store over LiteLLM's budget protocol: a ledger in this process, and the users' records at an endpoint."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from litellm_budget_plugin.core.commands import (
    Command,
    DropBudget,
    PutBudget,
    Read,
    Release,
    Reply,
    Reserve,
    Reset,
    Settle,
)
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.clock import clock
from litellm_budget_plugin.stores.guard import Guard, watch_forks
from litellm_budget_plugin.stores.hosted.book import NotingBook
from litellm_budget_plugin.stores.hosted.exchange import Exchange, get_budget, set_budget
from litellm_budget_plugin.stores.hosted.line import Job, Line
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.rows import Page, Rows

T = TypeVar("T")

FRESH_SECONDS = 2.0
"""How old what is known of the others' spend may be when a call is let through."""

_READS = (Settle, PutBudget, DropBudget, Reset, Read)
"""Answered on what the endpoint says now."""
_WRITES = (Settle, PutBudget, DropBudget, Reset, Release)
"""Answered when the endpoint has what they have changed."""


class HostedStore:
    """A ledger whose users' records are at an endpoint of LiteLLM's budget protocol, for those who speak it.

    The protocol carries whole dictionaries of records: limits, windows and spend of users. Holds, marks, totals, and the
    accounts of models, teams, tags and the project are this process's own. Every charge and every change of a budget is one
    read and one write of the dictionary, taken together for all that wait at that moment; holds are granted on what was
    read at most FRESH_SECONDS ago. docs/guarantees.md says what that can overspend and lose.

    A child after a fork reads for itself, and writes nothing of its parent's.
    """

    remote = True

    def __init__(self, exchange: Exchange, name: str, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._exchange = exchange
        self._name = name
        self._now = clock(test_clock)
        self._timeout = timeout
        self._closed = self._paused = self._forked = False
        self._guard = Guard()
        self._begin(NotingBook())
        watch_forks(self)

    def _begin(self, book: NotingBook) -> None:
        self._book = book
        self._writer = uuid.uuid4().hex[:12]
        self._lines: dict[str, Line] = {}

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        [outcome] = self.execute_all((command,), timeout)
        if isinstance(outcome, BudgetInputError):
            raise outcome
        return outcome

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each, with at most one read and one write for each project."""
        deadline = time.monotonic() + (self._timeout if timeout is None else min(timeout, self._timeout))
        places: dict[str, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(command.project, []).append(place)
        answers: dict[int, Outcome] = {}
        for project, its in places.items():
            answers.update(zip(its, self._run(self._line(project), [commands[place] for place in its], deadline)))
        return [answers[place] for place in range(len(commands))]

    def _line(self, project: str) -> Line:
        if self._closed:
            raise BudgetStoreError(f"{self._name}: this store was closed")
        if self._forked:
            self._guard.run(self._name, self._timeout, self._disown)
        return self._lines.setdefault(project, Line(project, self._writer))

    def _disown(self) -> None:
        if self._forked:
            self._begin(self._book.inherited())
            self._forked = False

    def _run(self, line: Line, commands: list[Command], deadline: float) -> list[Outcome]:
        for command in commands:
            line.defaults = getattr(command, "defaults", ()) or line.defaults
        job = Job(commands, writes=any(isinstance(command, _WRITES) for command in commands))
        reserves = any(isinstance(command, Reserve) for command in commands)
        line.used = line.used or reserves
        if any(isinstance(command, _READS) for command in commands) or (reserves and line.age > FRESH_SECONDS):
            self._wait(line, job, deadline)
        else:
            self._alone(self._apply, line, [job])
            if job.writes and self._alone(line.owes, self._book):
                self._wait(line, job, deadline)
        assert job.outcomes is not None
        return job.outcomes

    def _wait(self, line: Line, job: Job, deadline: float) -> None:
        """Have the job applied and, if it writes, what it has changed at the endpoint: with an exchange of this thread's own, or
        with the one before, for which it came in time.
        """
        line.waiting.append(job)
        try:
            line.guard.run(self._name, deadline - time.monotonic(), self._exchange_for, line, job, deadline)
        finally:
            line.waiting.remove(job)

    def _exchange_for(self, line: Line, job: Job, deadline: float) -> None:
        if job.outcomes is not None and not (job.writes and self._alone(line.owes, self._book)):
            return
        asked_at = time.monotonic()
        records = get_budget(self._exchange, self._name, line.project, deadline)
        if records is None and line.stored:
            # To believe it would be to write a dictionary in which everybody else is missing.
            raise BudgetStoreUnavailable(
                f"{self._name}: the endpoint says that project {line.project!r} has no budgets, but it had some before; "
                "if they were deleted on purpose, start this process anew"
            )
        line.stored = records is not None
        self._alone(self._take, line, records or {}, job)
        line.read_at = asked_at
        gift = self._alone(line.give, self._book, self._time(line, job)) if job.writes else None
        if gift is not None:
            set_budget(self._exchange, self._name, line.project, gift.records, deadline)
            self._alone(line.arrived, gift)

    def _take(self, line: Line, records: dict[str, Any], job: Job) -> None:
        line.take(self._book, records, self._time(line, job))
        self._apply(line, list(line.waiting))

    def _apply(self, line: Line, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.outcomes is None:
                outcomes = [self._apply_one(line, command) for command in job.commands]
                job.outcomes = outcomes

    def _apply_one(self, line: Line, command: Command) -> Outcome:
        line.last, now = command, self._now(command)
        line.begin(self._book, now)
        try:
            return apply(self._book, command, now)
        except BudgetInputError as error:
            return error

    def _time(self, line: Line, job: Job) -> int:
        return self._now(job.commands[0] if job.commands else line.last)

    def _alone(self, work: Callable[..., T], *args: object) -> T:
        return self._guard.run(self._name, self._timeout, work, *args)

    def sync(self) -> None:
        """Write what is still to be written, see whether the last write was kept, and read ahead for calls that go on, so that
        they need not wait for it.
        """
        for line in [] if self._closed or self._forked else list(self._lines.values()):
            looks = line.age > FRESH_SECONDS if line.wrote else line.used and line.age > FRESH_SECONDS / 2
            if looks or self._alone(line.owes, self._book):
                self._wait(line, Job((), writes=True), time.monotonic() + self._timeout)

    def projects(self) -> list[str]:
        """Refused: raises BudgetStoreError."""
        self._no_rows()

    def export(self, project: str, after: str, most: int) -> Page:  # noqa: ARG002  # the contract's
        """Refused: raises BudgetStoreError."""
        self._no_rows()

    def load(self, project: str, rows: Rows) -> None:  # noqa: ARG002  # the contract's
        """Refused: raises BudgetStoreError."""
        self._no_rows()

    def _no_rows(self) -> NoReturn:
        raise BudgetStoreError(
            f"{self._name}: LiteLLM's budget protocol carries the users' records and nothing else of a ledger (no projects, "
            "holds, marks or totals), so it cannot be copied row by row; carry the records over with BudgetManager.user_dict"
        )

    def close(self) -> None:
        """Forget everything. What is still to be written must have been written by `sync`."""
        self._closed = True
        self._exchange.close()

    def before_fork(self) -> None:
        """Wait for a change to the book to end; for the endpoint, nobody has to wait."""
        self._paused = self._guard.pause()

    def after_fork(self, in_child: bool) -> None:
        """In the child, forget what is the parent's before the next command."""
        if in_child:
            self._guard.renew()
            self._forked = True
        elif self._paused:
            self._guard.resume()
