"""A store whose rows are on a server and whose rules run here.

Most commands only add to sums: a hold is granted in full, an attempt is settled or released. The rules run on rows that this process
saw before, and their changes are sent as one `Add`, which the server applies only if nothing that the rules depend on has changed.
Any other answer (a refusal, a partial grant) is decided on rows read for this command. All other commands run as a transaction.

Every reply is one that the rules give on the rows as they were at some moment between the question and the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from litellm_budget_plugin.core.accounts import Hold, Subject
from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import (
    Accounts,
    Change,
    Command,
    Read,
    ReadUsage,
    Release,
    Renew,
    Reply,
    Reserve,
    Settle,
    Sweep,
    Swept,
    UsageRows,
)
from litellm_budget_plugin.core.holding import MOST_DUE
from litellm_budget_plugin.core.ledger import change, expire_some
from litellm_budget_plugin.core.reading import states_of
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.net.engine import Engine, Seen, View
from litellm_budget_plugin.stores.net.planning import (
    GUARDED,
    Guarded,
    KnownRows,
    Plan,
    Unknown,
    addable,
    holds_of,
    is_plain,
    plan_of,
)
from litellm_budget_plugin.stores.net.recent import Recent
from litellm_budget_plugin.stores.net.transaction import Transaction
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.rows import Page, Rows

_TRIES = 5
"""The number of attempts before a command runs as a transaction, the first on known rows: others may change rows each time."""
_TOGETHER = 64
"""The most commands in one transaction: others of the project wait for it."""
_COPYING = 60.0
"""The extra time (seconds) for a page of a copy: no call waits for it."""


class GuardedStore:
    """A `stores.protocol.Store` over an engine. `timeout` is in seconds."""

    remote = True

    def __init__(self, engine: Engine, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._engine = engine
        self._test_clock = test_clock
        self._timeout = timeout
        self._closed = False
        # Remembered rows may be old: the server checks everything that depends on them.
        self._subjects: Recent[tuple[str, Subject], Seen] = Recent()
        self._holds: Recent[tuple[str, str], Hold] = Recent()
        self._ahead = 0
        """The lead of the server's clock over this machine's, in microseconds."""

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        return self._execute(command, self._deadline(timeout))

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each. Consecutive commands that only add to sums take one round
        trip. Other ends of attempts, such as those that were applied before, take one transaction.
        """
        deadline = self._deadline(timeout)
        outcomes: list[Outcome] = []
        while len(outcomes) < len(commands):
            outcomes += self._together(commands[len(outcomes) :], deadline)
            if len(ends := list(_ends(commands[len(outcomes) :]))) > 1:
                outcomes += self._transacted_together(ends, deadline)
            elif len(outcomes) < len(commands):
                try:
                    outcomes.append(self._execute(commands[len(outcomes)], deadline))
                except BudgetInputError as error:
                    outcomes.append(error)
        return outcomes

    def _deadline(self, timeout: float | None) -> float:
        if self._closed:
            raise BudgetStoreError(f"{self._engine.name}: this store was closed")
        return time.monotonic() + (self._timeout if timeout is None else min(timeout, self._timeout))

    def _execute(self, command: Command, deadline: float) -> Reply:
        check(command)
        if isinstance(command, Read):
            return self._read(command, deadline)
        if isinstance(command, ReadUsage):
            asked = (command.project, command.scope, command.subject, command.since, command.until)
            return UsageRows(tuple(self._engine.usage_rows(*asked, deadline)))
        if isinstance(command, Sweep):
            return self._sweep(command, deadline)
        reply = self._guarded(command, deadline) if isinstance(command, GUARDED) else None
        return self._transacted(command, deadline) if reply is None else reply

    # Commands that only add to sums.

    def _together(self, commands: Sequence[Command], deadline: float) -> list[Outcome]:
        """The replies of the first commands: of as many as could be applied in one round trip."""
        plans: list[Plan] = []
        some: list[Guarded] = []
        with suppress(BudgetInputError):
            for command in addable(commands):
                some.append(command)  # noqa: PERF402  # commands before an invalid one count
        # An invalid command ends the batch; it is executed by itself, which reports the error.
        with suppress(BudgetInputError):
            self._look_for_missing(some, deadline)
            before: dict[tuple[str, str], Hold] = {}
            for command in some:
                plan = self._planned(command, before=before)
                if plan is None or plan.add is None or plan.exact:
                    break
                plans.append(plan)
                before.update({(command.project, hold.id): hold for hold, _ in plan.add.holds})
            applied = self._engine.add([plan.add for plan in plans if plan.add is not None], deadline) if plans else 0
            for plan in plans[:applied]:
                self._remember(plan)
            return [plan.reply for plan in plans[:applied]]
        return []

    def _look_for_missing(self, commands: Sequence[Guarded], deadline: float) -> None:
        subjects: dict[str, set[Subject]] = {}
        holds: dict[str, set[str]] = {}
        for command in commands:
            project = command.project
            if unknown := {one for one in self._subjects_of(command) if (project, one) not in self._subjects}:
                subjects.setdefault(project, set()).update(unknown)
            if others := {one for one in holds_of(command)[1:] if (project, one) not in self._holds}:
                holds.setdefault(project, set()).update(others)
        for project in subjects.keys() | holds.keys():
            named = sorted(subjects.get(project, ())), sorted(holds.get(project, ()))
            self._look(project, *named, commands[0].now, deadline)

    def _guarded(self, command: Guarded, deadline: float) -> Reply | None:
        """The reply; None if it needs a transaction."""
        if not is_plain(command):
            return None
        view: View | None = None
        for attempt in range(_TRIES):
            if attempt:
                subjects = sorted(self._subjects_of(command))
                view = self._look(command.project, subjects, holds_of(command), command.now, deadline)
            plan = self._planned(command, view)
            if view is None and (plan is None or plan.exact):
                continue
            if plan is None:
                return None
            if plan.add is None:
                return plan.reply
            if self._engine.add([plan.add], deadline):
                self._remember(plan)
                return plan.reply
        return None

    def _subjects_of(self, command: Guarded) -> set[Subject]:
        subjects = set() if isinstance(command, Release) else set(command.subjects)
        for hold in holds_of(command):
            if (known := self._holds.get((command.project, hold))) is not None:
                subjects.update([Subject(leg.scope, leg.subject) for leg in known.legs])
        return subjects

    def _look(
        self, project: str, subjects: Sequence[Subject], holds: Sequence[str], now: int | None, deadline: float
    ) -> View:
        view = self._engine.view(project, subjects, holds, now if self._test_clock else None, deadline)
        self._ahead = view.now - time.time_ns() // 1000
        for subject, seen in view.subjects.items():
            self._subjects.put((project, subject), seen)
        for name, hold in view.holds.items():
            self._keep(project, name, hold)
        return view

    def _planned(
        self, command: Guarded, view: View | None = None, before: Mapping[tuple[str, str], Hold] = MappingProxyType({})
    ) -> Plan | None:
        """The plan for a command, by the rules: over the rows of a view, or over known rows and the holds that the
        commands sent `before` it leave. None if it needs a transaction.
        """
        if view is not None:
            now, holds = view.now, dict(view.holds)
        else:
            now = command.now if self._test_clock and command.now is not None else time.time_ns() // 1000 + self._ahead
            # A Reserve makes a hold; a Settle or Release of a hold that was not seen here has most likely none.
            holds = {command.hold: None}
            for hold in holds_of(command):
                key = command.project, hold
                if (known := before.get(key) or self._holds.get(key)) is not None:
                    holds[hold] = known
        if isinstance(command, Reserve) and holds[command.hold] is not None:
            return None
        book = KnownRows(self._subjects, holds, view)
        try:
            reply = change(book, command, now)
            return plan_of(command, reply, book, now, test_clock=self._test_clock)
        except Unknown:
            return None

    def _remember(self, plan: Plan) -> None:
        """Remember the rows as an applied Add has changed them."""
        add = plan.add
        if add is None:
            return
        for subject, seen in plan.read.items():
            rows = tuple([plan.accounts.get(row.ref, row) for row in seen.accounts])
            self._subjects.put((add.project, subject), Seen(seen.version, rows))
        for hold, _ in add.holds:
            self._keep(add.project, hold.id, hold)

    def _keep(self, project: str, name: str, hold: Hold | None) -> None:
        if hold is not None and hold.state == "open":
            self._holds.put((project, name), hold)
        else:
            self._holds.drop((project, name))

    # All other commands.

    def _transacted_together(self, commands: Sequence[Settle | Release], deadline: float) -> list[Outcome]:
        """The results of the first of these commands of one project: of as many as one transaction could apply."""
        project = commands[0].project
        settles = [command for command in commands if isinstance(command, Settle)]
        subjects = sorted({subject for command in settles for subject in command.subjects})
        holds = list(dict.fromkeys(hold for command in commands for hold in holds_of(command)))
        self._forget(project, subjects, holds)
        try:
            return self._engine.transact(
                project,
                subjects,
                holds,
                commands[0].now if self._test_clock else None,
                lambda transaction: [_outcome(transaction, command) for command in commands],
                deadline,
            )
        except BudgetInputError as error:
            # One of them has text that the server cannot store. It must not keep the others from being applied.
            if len(commands) == 1:
                return [error]
            return self._transacted_together(commands[: len(commands) // 2], deadline)

    def _transacted(self, command: Change, deadline: float) -> Reply:
        subjects = set(command.subjects) if isinstance(command, (Reserve, Settle)) else set()
        if (subject := getattr(command, "subject", None)) is not None:
            subjects.add(subject)
        holds = holds_of(command) if isinstance(command, GUARDED) else getattr(command, "holds", ())
        # A Renew moves time limits, and no plan depends on those.
        self._forget(command.project, subjects, () if isinstance(command, Renew) else holds)
        return self._engine.transact(
            command.project,
            sorted(subjects),
            holds,
            command.now if self._test_clock else None,
            lambda transaction: change(transaction, command, transaction.now),
            deadline,
        )

    def _forget(self, project: str, subjects: Iterable[Subject], holds: Iterable[str]) -> None:
        """Forget rows that a transaction may change, so that they are read again."""
        for subject in subjects:
            self._subjects.drop((project, subject))
        for hold in holds:
            self._holds.drop((project, hold))

    def _read(self, command: Read, deadline: float) -> Accounts:
        now = command.now if self._test_clock else None
        view, ids = self._rows_of(command, now, deadline)
        if view.due:
            self._expire_some(command.project, now, deadline)
            view, ids = self._rows_of(command, now, deadline)
        after = ids[-1] if command.subject is None and len(ids) == command.page else None
        states = [
            state
            for subject in ids
            for state in states_of(view.subjects[Subject(command.scope, subject)].accounts, command.defaults, view.now)
        ]
        return Accounts(view.now, tuple(states), after)

    def _rows_of(self, command: Read, now: int | None, deadline: float) -> tuple[View, list[str]]:
        if command.subject is None:
            return self._engine.page(command.project, command.scope, command.after, command.page, now, deadline)
        subject = Subject(command.scope, command.subject)
        return self._engine.view(command.project, (subject,), (), now, deadline), [command.subject]

    def _expire_some(self, project: str, now: int | None, deadline: float) -> int:
        return self._engine.transact(
            project, (), (), now, lambda transaction: expire_some(transaction, project, transaction.now), deadline
        )

    def _sweep(self, command: Sweep, deadline: float) -> Swept:
        project, now = command.project, command.now if self._test_clock else None
        present = self._engine.view(project, (), (), now, deadline).now
        # First the steps that need no memory: on a full server they make room for the rest.
        forgotten = self._engine.forget(project, present - command.marks_kept, deadline)
        folded = self._engine.fold(project, (present - command.days_kept) // DAY, deadline)
        expired = some = self._expire_some(project, now, deadline)
        while some >= MOST_DUE:
            some = self._expire_some(project, now, deadline)
            expired += some
        return Swept(expired, forgotten, folded)

    def sync(self) -> None:
        """Do nothing: a server keeps what it has acknowledged, as far as it is configured to."""

    def projects(self) -> list[str]:
        """Every project that has a row, sorted by code point."""
        return self._engine.projects(self._deadline(None))

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project in a stable order, about `most`."""
        return self._engine.export(project, after, most, self._deadline(None) + _COPYING)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys, in one step."""
        self._engine.load(project, rows, self._deadline(None) + _COPYING)

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        self._engine.close()


def _ends(commands: Sequence[Command]) -> Iterator[Settle | Release]:
    """The first commands, up to the first that is not the end of an attempt of the same project and time."""
    for command in commands[:_TOGETHER]:
        if not isinstance(command, (Settle, Release)):
            return
        if (command.project, command.now) != (commands[0].project, commands[0].now):
            return
        yield command


def _outcome(transaction: Transaction, command: Settle | Release) -> Outcome:
    try:
        check(command)
        return change(transaction, command, transaction.now)
    except BudgetInputError as error:
        return error
