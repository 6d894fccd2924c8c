"""The PostgreSQL store: one server-side function for each command, and a small pool of connections."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json, to_json

from litellm_budget_plugin.core.checks import check
from litellm_budget_plugin.core.commands import Command, DropBudget, PutBudget, Release, Reply, Reset, Settle
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.guard import watch_forks
from litellm_budget_plugin.stores.places import NoPlace
from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.copying import page_of, place_of, tables_of
from litellm_budget_plugin.stores.postgres.failures import UNSTORABLE, explained, retry_helps, unstorable
from litellm_budget_plugin.stores.postgres.line import Answer, Lost, Overrun, ServerError, Statement, connect
from litellm_budget_plugin.stores.postgres.messages import message_of, reply_of
from litellm_budget_plugin.stores.postgres.migrating import bring_up_to_date
from litellm_budget_plugin.stores.postgres.pool import Pool
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.rows import Page, Rows

_log = logging.getLogger("litellm_budget_plugin")

_DURABLE = (Settle, Release, PutBudget, DropBudget, Reset)
_COPYING = 60.0
"""The time-out (seconds) of copies, which are not on any call's way."""
_TROUBLE = (Lost, Overrun, ServerError)


class PostgresStore:
    """A ledger in one schema of a PostgreSQL database, shared by everybody who can reach it.

    What one of _DURABLE has done is on the server's disk when it is answered. The flush is a transaction of its own behind
    the command's, in the same round trip: nobody else's command waits for the disk, and one flush serves many.

    A child after a fork has connections of its own. It lets go of those that it inherited without a word on them.
    """

    remote = True

    def __init__(self, address: Address, *, test_clock: bool = False, timeout: float = 2.0) -> None:
        self._address = address
        self._test_clock = test_clock
        self._timeout = timeout
        self._closed = False
        self._flush: Statement = (f"SELECT {address.schema}.durable_v1()", ())
        self._check_schema()
        self._pool = Pool(address)
        watch_forks(self)
        _log.info("the budget ledger is %s", address.name)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it."""
        [outcome] = self.execute_all((command,), timeout)
        if isinstance(outcome, BudgetInputError):
            raise outcome
        return outcome

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other and answer each, in one round trip."""
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        deadline = time.monotonic() + seconds
        parts = [self._statements(command) for command in commands]
        statements = [statement for part in parts if isinstance(part, list) for statement in part]
        if not statements:
            return [part for part in parts if not isinstance(part, list)]
        if any(isinstance(command, _DURABLE) for command in commands):
            statements.append(self._flush)
        answers = iter(self._ask(statements, deadline, seconds))
        return [
            self._outcome(command, [next(answers) for _ in part]) if isinstance(part, list) else part
            for command, part in zip(commands, parts)
        ]

    def _statements(self, command: Command) -> list[Statement] | BudgetInputError:
        try:
            check(command)
            functions, message = message_of(command, self._test_clock)
        except BudgetInputError as error:
            return error
        except UNSTORABLE as error:
            return unstorable(error, self._address.name)
        return [(f"SELECT {self._address.schema}.{function}($1)", (message,)) for function in functions]

    def _outcome(self, command: Command, answers: Sequence[Answer]) -> Outcome:
        texts = []
        for answer in answers:
            if isinstance(answer, ServerError):
                failure = explained(answer, self._address.name, 0.0)
                if isinstance(failure, BudgetInputError):
                    return failure
                raise failure from answer
            assert answer is not None
            texts.append(answer)
        return reply_of(command, texts)

    def _ask(self, statements: Sequence[Statement], deadline: float, seconds: float) -> list[Answer]:
        """The answers to statements, which may be sent twice: commands are idempotent by their ids."""
        try:
            for again in (True, False):
                try:
                    answers = self._ask_once(statements, deadline, fresh=not again)
                    broken = [answer for answer in answers if isinstance(answer, ServerError) and retry_helps(answer)]
                    if not broken:
                        break
                    raise broken[0]
                except _TROUBLE as failure:
                    # A server that was restarted has left all idle connections broken.
                    if not again or not retry_helps(failure):
                        raise
        except _TROUBLE as failure:
            raise explained(failure, self._address.name, seconds) from failure
        if len(answers) == len(statements) and isinstance(answers[-1], ServerError) and statements[-1] is self._flush:
            raise explained(answers[-1], self._address.name, seconds) from answers[-1]
        return answers

    def _ask_once(self, statements: Sequence[Statement], deadline: float, *, fresh: bool) -> list[Answer]:
        pool = self._opened()
        try:
            place = pool.places.enter(deadline)
        except NoPlace:
            raise Overrun from None
        try:
            if fresh:
                pool.clear()
            line = pool.idle() or pool.open(deadline)
            answers = line.ask(statements, deadline)
            pool.keep(line)
            return answers
        finally:
            pool.places.leave(place)

    def projects(self) -> list[str]:
        """Every project that has a row, sorted."""
        return list(self._copy("projects_v1()"))

    def export(self, project: str, after: str, most: int) -> Page:
        """Raw rows in a stable order, up to `most` of one kind; "" starts."""
        part, key = place_of(after)
        rows = self._copy("export_v1($1, $2, $3::jsonb, $4)", project, part, to_json(key).decode(), str(most))
        return page_of(part, rows, most)

    def load(self, project: str, rows: Rows) -> None:
        """Put these rows as they are in place of rows with the same keys, in one step."""
        tables = [to_json(table).decode() for table in tables_of(rows)]
        self._copy("load_v1($1, $2::jsonb, $3::jsonb, $4::jsonb)", project, *tables)

    def _copy(self, call: str, *values: str) -> Any:
        statements = [(f"SELECT {self._address.schema}.{call}", values), self._flush]
        answer = self._ask(statements, time.monotonic() + _COPYING, _COPYING)[0]
        if isinstance(answer, ServerError):
            raise explained(answer, self._address.name, _COPYING) from answer
        return from_json(answer) if answer else None

    def _opened(self) -> Pool:
        pool = self._pool
        if self._closed:
            raise BudgetStoreError(f"{self._address.name}: this store was closed")
        if pool.pid != os.getpid():
            pool.clear()
            pool = self._pool = Pool(self._address)
        return pool

    def _check_schema(self) -> None:
        """Create or check the schema. The connection is not kept: a program that opens a store, forks its workers and calls
        nothing before has none that they could inherit.
        """
        address, deadline = self._address, time.monotonic() + self._timeout
        try:
            line = connect(address.attempts, address.prepare, deadline)
            try:
                bring_up_to_date(line, address.name, address.schema, deadline)
            finally:
                line.hang_up()
        except _TROUBLE as failure:
            raise explained(failure, address.name, self._timeout) from failure

    def sync(self) -> None:
        """Nothing is left to do: what has to be on the server's disk is there when it is answered."""

    def close(self) -> None:
        """Close the connections that are idle; those in use close when their commands end."""
        self._closed = True
        self._pool.clear()

    def before_fork(self) -> None:
        """Nothing: other threads' commands go on in the parent."""

    def after_fork(self, in_child: bool) -> None:
        """Let go of the parent's connections."""
        if in_child and not self._closed:
            self._opened()
