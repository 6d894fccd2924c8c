"""The store over LiteLLM's budget protocol: a ledger in this process, and its users' records at an endpoint.

`/get_budget` reads the dictionary of a project's records, `/set_budget` replaces it. The protocol has no
compare-and-set, so the last writer wins between processes. A process loses none of its own changes: commands are
applied in memory, and each write applies this process's changes on top of a fresh read.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, TypeVar

from litellm_budget_plugin.core.accounts import Account, Default, Ref, Subject, command_mark
from litellm_budget_plugin.core.budgets import current_budget
from litellm_budget_plugin.core.commands import (
    KEEP,
    Command,
    DropBudget,
    PutBudget,
    Read,
    Refund,
    Release,
    Reply,
    Reserve,
    Reset,
    SetLimits,
    Settle,
    TopUp,
)
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.core.ledger import apply
from litellm_budget_plugin.core.litellm_record import (
    FOLLOWS,
    KEYS,
    LEDGER,
    UNLIMITED,
    changes,
    exchanged_record,
    record_of,
    whole_record,
)
from litellm_budget_plugin.core.names import checked_id
from litellm_budget_plugin.core.reading import state_of
from litellm_budget_plugin.core.row_store import Changes
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.clock import clock
from litellm_budget_plugin.stores.fork_safe_lock import ForkSafeLock, watch_forks
from litellm_budget_plugin.stores.http.client import HttpClient
from litellm_budget_plugin.stores.protocol import Outcome

_log = logging.getLogger("litellm_budget_plugin")

STATUSES = ("success", "error")
"""The values of "status" in an answer of the protocol."""
FRESH_SECONDS = 2.0
"""The greatest age of the dictionary that a command is applied to."""

_ON_FRESH = (Reserve, Settle, PutBudget, DropBudget, Reset, Read)
_WRITES = (Settle, PutBudget, DropBudget, Reset, Release)
_SYNC = "litellm-budget:sync"
# How long a request that timed out may still arrive.
_LATE_SECONDS = 60.0
T = TypeVar("T")


class _State(NamedTuple):
    """The content of a record: whether the user has a limit of their own, and which (nano-dollars; None: unlimited);
    the window, its creation, start and end (microseconds; 0 without an end); the spend by model (nano-dollars).
    """

    limit: tuple[bool, int | None] = (False, None)
    window: tuple[str, int, int, int | None] = ("none", 0, 0, None)
    models: dict[str, int] = {}  # never changed


_NOTHING, _REFUSED = _State(), _State((True, 0))


@dataclass(eq=False)
class _Project:
    """The dictionary of a project's records, as this process knows it.

    `records` is the dictionary as it was last read or written (None: never), `read_at` the time when that read began
    (seconds of time.monotonic()), and `used` whether a command has needed it since. `synced` is the content of the
    records when they were last merged into the ledger. `unanswered` are the last dictionaries that were sent without an
    answer, with the times of sending. `unreadable` are the users whose records cannot be understood.
    """

    name: str
    records: dict[str, Any] | None = None
    read_at: float = -math.inf
    used: bool = False
    synced: dict[str, _State | None] = field(default_factory=dict)
    unanswered: deque[tuple[float, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=8))
    unreadable: set[str] = field(default_factory=set)
    defaults: tuple[Default, ...] = ()

    @property
    def default(self) -> Default:
        """The default that users without a limit of their own follow."""
        users = (
            each
            for each in self.defaults
            if (each.scope, each.model, each.unit, each.subject) == ("user", "", "usd", "")
        )
        return next(users, Default("user"))


class _Book(DictRowStore):
    """Rows in dictionaries, and the users of each project whose records may have to be written."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[str, set[str]] = {}

    def write(self, project: str, changes: Changes) -> None:
        self.touched.setdefault(project, set()).update(ref.subject for ref in changes.accounts if _recordable(ref))
        # Commands that merge a record are never sent again, and need no mark.
        changes.holds.pop(command_mark(_SYNC), None)
        super().write(project, changes)

    def account(self, project: _Project, user: str) -> Account | None:
        """The account that a user's record describes: the one that a `PutBudget` would change."""
        rows = self.accounts(project.name, Subject("user", user))
        return current_budget([row for row in rows if _recordable(row.ref)], project.defaults)


class HostedStore:
    """A ledger whose users' records are at an endpoint of LiteLLM's budget protocol.

    The endpoint keeps the limits, windows and spend of users, in US dollars for any model. Everything else (holds, marks, totals,
    other accounts) belongs to this process and ends with it. A charge or a change of a budget is acknowledged once the endpoint
    has acknowledged it. A forked child starts like a new process. docs/guarantees.md says what several processes can lose.
    """

    remote = True

    def __init__(self, exchange: HttpClient, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._exchange, self._name = exchange, exchange.name
        self._now_of, self._timeout = clock(test_clock), timeout
        self._closed = False
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        # One exchange with the endpoint at a time. A hold that needs no exchange does not wait for one.
        self._exchanging, self._guard = ForkSafeLock(), ForkSafeLock()
        self._book, self._projects = _Book(), dict[str, _Project]()
        self._last: Command = Read("", "user")

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        [outcome] = self.execute_all((command,), timeout)
        if isinstance(outcome, BudgetInputError):
            raise outcome
        return outcome

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each, with at most two reads and one write for each project."""
        if self._closed:
            raise BudgetStoreError(f"{self._name}: this store was closed")
        began = time.monotonic()
        deadline = began + (self._timeout if timeout is None else min(timeout, self._timeout))
        for command in commands:
            if isinstance(command, (SetLimits, TopUp, Refund)):
                raise BudgetInputError(
                    "LiteLLM's budget protocol has one budget for each user, in US dollars: lists of limits and balances need another "
                    "ledger, such as litellm-budget serve"
                )
            project = self._projects.setdefault(command.project, _Project(command.project))
            project.defaults = getattr(command, "defaults", ()) or project.defaults
            if isinstance(command, _ON_FRESH):
                project.used = True
                if project.read_at < began - FRESH_SECONDS:
                    self._exchange_with(self._read, project, began - FRESH_SECONDS, deadline)
        outcomes = self._alone(self._apply, commands)
        for name in {command.project for command in commands if isinstance(command, _WRITES)}:
            if self._alone(self._owed, self._projects[name]):
                self._exchange_with(self._write, self._projects[name], began, deadline)
        return outcomes

    def _apply(self, commands: Sequence[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for command in commands:
            self._last = command
            try:
                outcomes.append(apply(self._book, command, self._now))
            except BudgetInputError as error:
                outcomes.append(error)
        return outcomes

    @property
    def _now(self) -> int:
        return self._now_of(self._last)

    def _alone(self, work: Callable[..., T], *args: object) -> T:
        return self._guard.run(self._name, self._timeout, work, *args)

    def _exchange_with(self, work: Callable[..., None], project: _Project, since: float, deadline: float) -> None:
        self._exchanging.run(self._name, deadline - time.monotonic(), work, project, since, deadline)

    def _ask(self, question: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        answer = self._exchange.post(question, body, deadline)
        status = answer.get("status") if isinstance(answer, dict) else None
        wants_data = (status, question) == ("success", "/get_budget")
        if status not in STATUSES or (wants_data and not isinstance(answer.get("data"), dict)):
            raise BudgetStoreError(
                f"{self._name}{question} answered {answer!r:.80}; is this an endpoint of LiteLLM's budget protocol?"
            )
        return dict(answer)

    def _read(self, project: _Project, since: float, deadline: float) -> None:
        """Merge the dictionary into the ledger, unless it was read at the time `since` or later."""
        if project.read_at >= since:
            return
        asked_at = time.monotonic()
        answer = self._ask("/get_budget", {"project_name": project.name}, deadline)
        if answer["status"] == "error" and project.records:
            # If this were believed, the next write would delete all other users.
            raise BudgetStoreUnavailable(
                f"{self._name}: the endpoint says that project {project.name!r} has no budgets, but it had some before; "
                "if they were deleted on purpose, restart this process"
            )
        self._alone(self._take, project, answer.get("data") or {})
        project.read_at = asked_at

    def _write(self, project: _Project, since: float, deadline: float) -> None:
        """Write the changes that the endpoint does not know on top of a dictionary that was read at the time `since` or later."""
        # If this thread had to wait, the previous thread's write may already contain its charge.
        if self._alone(self._owed, project):
            self._read(project, math.inf if project.unanswered else since, deadline)
        owed = self._alone(self._owed, project)
        if not owed:
            return
        records = {user: record for user, record in (project.records or {}).items() if user not in owed}
        records.update({user: record for user, (record, _) in owed.items() if record is not None})
        project.unanswered.append((time.monotonic(), records))
        answer = self._ask("/set_budget", {"project_name": project.name, "user_dict": records}, deadline)
        if answer["status"] == "error":
            raise BudgetStoreUnavailable(f"{self._name}: set_budget failed: {answer!r:.200}")
        self._alone(project.synced.update, {user: state for user, (_, state) in owed.items()})
        project.records = records
        project.unanswered.pop()

    def _owed(self, project: _Project) -> dict[str, tuple[dict[str, Any] | None, _State | None]]:
        """The records to write (None: to delete) and their content, by user."""
        touched, known = self._book.touched.setdefault(project.name, set()), project.records or {}
        owed: dict[str, tuple[dict[str, Any] | None, _State | None]] = {}
        for user in touched - project.unreadable:
            account, base = self._book.account(project, user), project.synced.get(user)
            state = _state(account, base)
            if state == base:
                touched.discard(user)
            elif state is None or account is None:
                owed[user] = None, None
            else:
                owed[user] = _record(account, project.default, known.get(user), self._now), state
        return owed

    def _take(self, project: _Project, records: dict[str, Any]) -> None:
        known = project.records or {}
        for user in known.keys() | records.keys():
            if user not in known or records.get(user) != known[user]:
                self._take_one(project, user, records.get(user))
        project.records, project.used = records, False
        # Forgotten only after a read: however long ago a write was sent, the first read after it shows whether it arrived.
        while project.unanswered and project.unanswered[0][0] < time.monotonic() - _LATE_SECONDS:
            project.unanswered.popleft()

    def _take_one(self, project: _Project, user: str, there: object) -> None:
        """Merge a changed record (None: it was deleted) into the ledger."""
        try:
            checked_id(user, "user")
        except BudgetInputError:
            return  # no call can name this user
        project.unreadable.discard(user)
        try:
            theirs = None if there is None else _read_record(there, self._now)
        except BudgetInputError as error:
            _log.error(
                "the record of user %r in project %r cannot be understood: %s. It is left as it is at the endpoint, and the "
                "user has no budget until it is repaired",
                user, project.name, error,
            )  # fmt: skip
            project.unreadable.add(user)
            theirs = _REFUSED
        # A record from a write of this process whose answer was lost is not a change by others.
        own = any(_same(sent.get(user), there) for _, sent in project.unanswered)
        base = theirs if own else project.synced.get(user)
        if theirs and not theirs.limit[0] and project.defaults and theirs.window[0] != project.default.window:
            # It follows the default of a process with another DEFAULT_WINDOW: that is another account.
            project.synced[user] = None
            return
        merged = _merged(_state(self._book.account(project, user), base), base, theirs)
        try:
            self._put(project, user, merged, theirs)
        except BaseException:
            # Repeated after an interrupt, it has the same result.
            self._put(project, user, merged, theirs)
            raise

    def _put(self, project: _Project, user: str, merged: _State | None, theirs: _State | None) -> None:
        """Make the user's account equal to `merged`. Money held on it stays held until its calls end."""
        subject, account = Subject("user", user), self._book.account(project, user)
        if merged is not None:
            window, created, start, end = merged.window
            ref = Ref(*subject, "", window)
            if account is None or account.ref != ref:
                bounds = KEEP if end is None else (start, end)
                put = PutBudget(_SYNC, project.name, subject, window=window, bounds=bounds, only=True)
                apply(self._book, replace(put, defaults=project.defaults), self._now)
                account = next(row for row in self._book.accounts(project.name, subject) if row.ref == ref)
            moved = end is not None and start != account.start
            if end is not None:
                account.created_at, account.start, account.end = created, start, end
            (account.pinned, account.limit), account.dropped = merged.limit, False
            if moved or any(merged.models.get(model, 0) < spent for model, spent in account.models.items()):
                # The new epoch voids corrections of earlier charges.
                account.epoch += 1
            account.models, account.spent = dict(merged.models), sum(merged.models.values())
            self._book.write(project.name, Changes({ref: account}))
        elif account is not None and not account.dropped:
            apply(self._book, DropBudget(_SYNC, project.name, subject, "", account.ref.window), self._now)
        project.synced[user] = theirs

    def sync(self) -> None:
        """Write all changes that are not written yet, and read ahead for projects in use, so that their next calls need not wait."""
        for project in [] if self._closed else list(self._projects.values()):
            began = time.monotonic()
            if self._alone(self._owed, project):
                self._exchange_with(self._write, project, began, began + self._timeout)
            elif project.used and project.read_at < began - FRESH_SECONDS / 2:
                self._exchange_with(self._read, project, began, began + self._timeout)

    def projects(self, *_: Any, **__: Any) -> NoReturn:
        """Always raise BudgetStoreError: the protocol cannot carry a whole ledger."""
        raise BudgetStoreError(
            f"{self._name}: LiteLLM's budget protocol carries the users' records and nothing else of a ledger, so it cannot "
            "be copied row by row; carry the records over with BudgetManager.user_dict"
        )

    export = load = projects

    def close(self) -> None:
        """Forget everything. Changes that `sync` has not written are lost."""
        self._closed = True
        self._exchange.close()

    def before_fork(self) -> None:
        """Do nothing: the child forgets the parent's ledger."""

    def after_fork(self, in_child: bool) -> None:
        """In the child, start like a new process: unwritten charges and open holds belong to the parent."""
        if in_child:
            self._begin()


def _recordable(ref: Ref) -> bool:
    """Whether the protocol can carry an account: one of a user, for any model, in US dollars."""
    return (ref.scope, ref.model, ref.unit) == ("user", "", "usd")


def _state(account: Account | None, base: _State | None) -> _State | None:
    """The content that an account's record must have. None: there must be no record, as for a user of the default without spend."""
    if account is None or account.dropped or not (account.pinned or account.models or account.epoch or base):
        return None
    window = _window(account.ref.window, account.created_at, account.start, account.end)
    return _State((account.pinned, account.limit if account.pinned else None), window, account.models)


def _window(window: str, created: int, start: int, end: int | None) -> tuple[str, int, int, int | None]:
    return (window, 0, 0, None) if end is None else (window, created, start, end)


def _merged(mine: _State | None, base: _State | None, theirs: _State | None) -> _State | None:
    """The changes made here, from `base` to `mine`, on top of the changes made there, from `base` to `theirs`. A budget
    that was dropped on one side is removed, with its earlier spend.
    """
    if mine is None:
        return theirs if base is None else None
    old, new = base or _NOTHING, theirs or _NOTHING
    limit = new.limit if mine.limit == old.limit else mine.limit
    # Of two new windows, the later one counts.
    here = theirs is None or (mine.window != old.window and mine.window[2] >= new.window[2])
    anew = base is not None and new.window != old.window
    ended = here and new.window[3] is not None and mine.window[2] >= new.window[3]
    there = {} if ended else new.models
    # Spend that both sides have forgotten must not be subtracted again.
    before = {} if ended or (anew and mine.window != old.window) else old.models
    own = {model: mine.models.get(model, 0) - before.get(model, 0) for model in {**mine.models, **before}}
    sums = {
        model: there.get(model, 0) + (max(0, own.get(model, 0)) if anew else own.get(model, 0))
        for model in {**there, **own}
    }
    models = {model: spent for model, spent in sums.items() if spent > 0}
    return _State(limit, mine.window if here else new.window, models) if theirs or models or limit[0] else None


def _read_record(record: object, now: int) -> _State:
    """The content of a record. Raises BudgetInputError, naming the key."""
    whole = whole_record(record)
    fields = changes({key: value for key, value in whole.items() if key in KEYS}, None, "none", now, "UTC")
    (start, end), limit, own = fields["bounds"], fields["limit"], whole.get(FOLLOWS) is not True
    window = _window(fields["window"], fields.get("created_at", start), start, end)
    limited = own and limit is not None and limit < UNLIMITED
    return _State((own, limit if limited else None), window, dict(fields.get("spent", ())))


def _record(account: Account, default: Default, there: object, now: int) -> dict[str, Any]:
    """The record of an account. It replaces `there`, and keeps the keys of `there` that are not the ledger's."""
    record = exchanged_record(record_of(state_of(account, default, now), default), follows=not account.pinned)
    others: dict[str, Any] = there if isinstance(there, dict) else {}
    return {**{key: value for key, value in others.items() if key not in (*KEYS, FOLLOWS, LEDGER)}, **record}


def _same(sent: dict[str, Any] | None, there: object) -> bool:
    """Whether a record that was sent equals the one at the endpoint. An endpoint may drop keys that LiteLLM does not know."""
    if sent is None or not isinstance(there, dict):
        return sent is there
    return all(sent.get(key) == there.get(key) for key in KEYS if key != "window")
