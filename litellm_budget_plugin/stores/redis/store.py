"""The Redis store: the rules run on the server, one script and one round trip for each command."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import Accounts, Command, Read, ReadUsage, Reply, Sweep, Swept, UsageRows
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.redis.address import Address
from litellm_budget_plugin.stores.redis.copying import export_request, load_request, page_of
from litellm_budget_plugin.stores.redis.failures import LOST, code_of, explained, is_temporary
from litellm_budget_plugin.stores.redis.lines import Answer, Lines
from litellm_budget_plugin.stores.redis.names import check_root, project_of, root_of
from litellm_budget_plugin.stores.redis.replies import accounts_of, reply_to, text, usage_row
from litellm_budget_plugin.stores.redis.requests import request_for, usage_request
from litellm_budget_plugin.stores.redis.routes import route_to
from litellm_budget_plugin.stores.redis.scripts import Request, packed_words
from litellm_budget_plugin.stores.redis.vetting import Vetting
from litellm_budget_plugin.stores.rows import Page, Rows

_log = logging.getLogger("litellm_budget_plugin")

T = TypeVar("T")

VERSION = 1
"""Of the keys and of what lies in them. A server with a higher one is refused."""

_BATCH = 500
"""How many commands are sent before their answers are read."""
_PAUSE = 0.02
"""How long (seconds) to wait before asking again who serves."""

_inherited: list[object] = []
"""Connections that a fork copied into this process: never used and never closed."""


class RedisStore:
    """A ledger on a Redis server, shared by everybody who reaches it. The server's clock counts.

    Connections are opened when they are needed, and never used by another process than the one that opened them.
    """

    remote = True

    def __init__(self, address: Address, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._address, self._test_clock, self._timeout = address, test_clock, timeout
        self._vetting = Vetting(address.name)
        self._route = route_to(address, timeout, self._vetting)
        self._pid = os.getpid()
        self._closed = False
        self._open()
        _log.info("the budget ledger is %s", address.name)

    def _open(self) -> None:
        """Check the server. The connection is not kept: nobody can inherit it who forks before the first command."""
        deadline = time.monotonic() + self._timeout
        try:
            (version,) = self._answers([Request("check", check_root(self._address.prefix), b"%d" % VERSION)], deadline)
        finally:
            self._renew()
        if int(version) > VERSION:
            raise BudgetStoreError(
                f"{self._address.name}: the ledger was written by a later version of litellm-budget-plugin (keys of version "
                f"{int(version)}, this one knows {VERSION}); update this installation"
            )

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it. `timeout` bounds the whole of it: waiting, connecting, sending and receiving."""
        deadline = time.monotonic() + self._seconds(timeout)
        request = self._request(command)
        return self._reply(command, request, self._answers([request], deadline)[0], deadline)

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other in one round trip and answer each."""
        deadline = time.monotonic() + self._seconds(timeout)
        outcomes: list[Outcome | None] = [None] * len(commands)
        requests: dict[int, Request] = {}
        for place, command in enumerate(commands):
            try:
                requests[place] = self._request(command)
            except BudgetInputError as error:
                outcomes[place] = error
        answers = self._answers(list(requests.values()), deadline)
        for (place, request), answer in zip(requests.items(), answers):
            outcomes[place] = self._reply(commands[place], request, answer, deadline)
        return [outcome for outcome in outcomes if outcome is not None]

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else min(timeout, self._timeout)

    def _request(self, command: Command) -> Request:
        check(command)
        return request_for(command, root_of(self._address.prefix, command.project), self._test_clock)

    def _reply(self, command: Command, request: Request, answer: Answer, deadline: float) -> Reply:
        """The reply of a command, after the further rounds that it may take."""
        if isinstance(command, Read):
            return self._read(command, answer, deadline)
        if isinstance(command, ReadUsage):
            return self._read_usage(command, answer, deadline)
        if isinstance(command, Sweep):
            return self._sweep(request, answer, deadline)
        while answer.__class__ is list and answer and answer[0] == b"Again":
            (answer,) = self._answers([request], deadline)
        return reply_to(command, answer)

    def _read(self, command: Read, answer: Answer, deadline: float) -> Accounts:
        page = accounts_of(command, answer)
        states, left = list(page.accounts), command.page - (len(answer) - 2)
        while page.after is not None and left > 0:
            more = replace(command, after=page.after, page=left)
            (answer,) = self._answers([self._request(more)], deadline)
            page = accounts_of(more, answer)
            states += page.accounts
            left -= len(answer) - 2
        return Accounts(page.now, tuple(states), page.after)

    def _read_usage(self, command: ReadUsage, answer: Answer, deadline: float) -> UsageRows:
        rows = [usage_row(command.scope, row) for row in answer[1:]]
        while answer[0] is not None:
            request = usage_request(command, root_of(self._address.prefix, command.project), text(answer[0]))
            (answer,) = self._answers([request], deadline)
            rows += [usage_row(command.scope, row) for row in answer[1:]]
        return UsageRows(tuple(sorted(rows)))

    def _sweep(self, request: Request, answer: Answer, deadline: float) -> Swept:
        expired, forgotten, folded, more = answer
        while more:
            ((and_expired, and_forgotten, and_folded, more),) = self._answers([request], deadline)
            expired, forgotten, folded = expired + and_expired, forgotten + and_forgotten, folded + and_folded
        return Swept(expired, forgotten, folded)

    def projects(self) -> list[str]:
        """Every project that has a row, sorted. Looks through all keys of the servers, some at a time."""
        deadline = time.monotonic() + self._timeout
        return sorted(self._patiently(lambda: self._projects(deadline), deadline))

    def _projects(self, deadline: float) -> set[str]:
        prefix, found = self._address.prefix, set[str]()
        for lines in self._route.everywhere(deadline):
            cursor = b"0"
            while True:
                # One letter at the end: the keys of subjects and holds, which are the many, stay on the server.
                words = (b"SCAN", cursor, b"MATCH", f"{prefix}{{*}}:[ahct]".encode(), b"COUNT", b"1000")
                (answer,) = lines.exchange([packed_words(*words)], deadline)
                if isinstance(answer, Exception):
                    raise _Refused(answer)
                cursor, keys = answer
                found.update(project for key in keys if (project := project_of(prefix, text(key))) is not None)
                if cursor == b"0":
                    break
        return found

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows of a project in a stable order, about `most`; "" begins, `after` of a page goes on."""
        request = export_request(root_of(self._address.prefix, project), after, most)
        (answer,) = self._answers([request], time.monotonic() + self._timeout)
        return page_of(after, answer)

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys, in one step."""
        request = load_request(root_of(self._address.prefix, project), rows)
        self._answers([request], time.monotonic() + self._timeout)

    def _answers(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        """What the scripts return. Raises BudgetStoreError if one of them could not be run."""
        return self._patiently(lambda: self._attempt(requests, deadline), deadline)

    def _patiently(self, attempt: Callable[[], T], deadline: float) -> T:
        """What `attempt` returns, tried again until the deadline while another server may take over."""
        if self._closed:
            raise BudgetStoreError(f"{self._address.name}: this store was closed")
        if self._pid != os.getpid():  # also after a fork that Python does not see, as uWSGI's
            self._keep_inherited()
        began, said = time.monotonic(), None
        while True:
            try:
                return attempt()
            except (*LOST, _Refused, BudgetStoreError) as error:
                cause = error.reply if isinstance(error, _Refused) else error
                said = cause if code_of(cause) else said
                temporary = is_temporary(cause)
                self._route.forget()
                if self._route.moves and temporary and time.monotonic() + _PAUSE < deadline:
                    time.sleep(_PAUSE)
                    continue
                if temporary and said is not None:
                    # Tells more than that the time ran out in asking once more.
                    raise explained(said, self._address.name, deadline - began) from cause
                if isinstance(error, BudgetStoreError):
                    raise type(error)(f"{self._address.name}: {error}") from error.__cause__
                raise explained(cause, self._address.name, deadline - began) from cause

    def _attempt(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        answers: list[Answer] = []
        first = 0
        while first < len(requests):
            lines, last = self._route.lines(requests[first].root, deadline), first + 1
            while last < len(requests) and last - first < _BATCH:
                if requests[last].root != requests[first].root:
                    break
                last += 1
            answers += self._run(lines, requests[first:last], deadline)
            first = last
        return answers

    def _run(self, lines: Lines, requests: Sequence[Request], deadline: float) -> list[Answer]:
        # A script that the server has not got could let the commands behind it overtake its own: among several, the
        # first run of each brings its text.
        whole = len(requests) > 1
        while True:
            answers = lines.exchange(_packed(requests, whole), deadline)
            failed = [answer for answer in answers if isinstance(answer, Exception)]
            if not failed:
                return answers
            if any(code_of(error) != "NOSCRIPT" for error in failed):
                raise _Refused(next(error for error in failed if code_of(error) != "NOSCRIPT"))
            whole = True

    def sync(self) -> None:
        """How soon a charge is on the server's disk is the server's setting (appendfsync): see docs/redis.md."""

    def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        if self._pid == os.getpid():
            self._route.close()

    def _keep_inherited(self) -> None:
        self._pid = os.getpid()
        _inherited.append(self._route)
        self._route = route_to(self._address, self._timeout, self._vetting)

    def _renew(self) -> None:
        self._route.close()
        self._route = route_to(self._address, self._timeout, self._vetting)


class _Refused(Exception):
    """The server has answered with an error."""

    def __init__(self, reply: Exception) -> None:
        super().__init__(f"{reply}")
        self.reply = reply


def _packed(requests: Sequence[Request], whole: bool) -> list[bytes]:
    if not whole:
        return [request.packed() for request in requests]
    seen: set[str] = set()
    packed = []
    for request in requests:
        packed.append(request.packed(whole=request.script not in seen))
        seen.add(request.script)
    return packed
