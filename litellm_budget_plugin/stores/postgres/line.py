"""One connection to a PostgreSQL server, on which every wait ends at a deadline.

psycopg's own connections wait for a server for as long as TCP does. This module waits for the socket in its own loop
around libpq's non-blocking calls (https://www.postgresql.org/docs/current/libpq-async.html), in the same thread. Only
the resolution of a host's name, which libpq leaves to the system, is not bounded.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Union

from psycopg import Error, pq

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

Statement = tuple[str, Sequence[str | None]]
"""SQL with $1, $2, ... and their values, None for NULL."""
Batch = Sequence[Statement]
"""Statements of one transaction, unless they begin and end one themselves."""

_MOST_PREPARED = 200
"""The most statements that a connection keeps prepared. Each takes memory on the server."""


class Overrun(Exception):
    """The deadline passed before the server answered."""


class Lost(Exception):
    """The connection broke, or could not be made. A command that was sent may have been applied or not."""


class ServerError(Exception):
    """The server's error for a statement, the one at `place` in its batch. `state` is its SQLSTATE."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state
        self.place = 0


Answer = Union[str, None]
"""The first column of a statement's first row; None without a row."""
Answers = Union[list[Answer], ServerError]
"""The answers to a batch, or the error that it failed with: then nothing of it was applied, unless it ended a transaction before."""


class Line:
    """A connection. Not thread-safe: it belongs to the thread that took it from the pool.

    After Overrun, Lost or an interrupt was raised on a line, it is not usable any more.
    """

    __slots__ = ("_connection", "_names", "_poll", "_prepare", "_prepared")

    def __init__(self, connection: PGconn, prepare: bool) -> None:
        self._connection = connection
        self._prepare = prepare
        self._prepared: dict[str, bytes] = {}
        self._names = count()
        self._poll = select.poll()
        self._poll.register(connection.socket, select.POLLIN)

    def ask(self, batches: Sequence[Batch], deadline: float) -> list[Answers]:
        """The answers to each batch, all in one round trip. Raises Overrun when `deadline` (time.monotonic) has passed,
        Lost, and, before sending anything, UnicodeError for text that PostgreSQL cannot store.
        """
        encoded = [[(sql, _encoded(values)) for sql, values in batch] for batch in batches]
        try:
            return self._ask(encoded, deadline)
        except Error as error:
            raise Lost(_text(error)) from error

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return self._connection.transaction_status == pq.TransactionStatus.IDLE

    def run(self, script: str, deadline: float) -> Answer:
        """The answer to the last statement of a script. Raises ServerError, and the errors of `ask`."""
        answer, failure = None, None
        try:
            self._connection.send_query(script.encode())
            self._flush(deadline)
            while (result := self._next(deadline)) is not None:
                try:
                    answer = _answer(result)
                except ServerError as error:
                    failure = error
        except Error as error:
            raise Lost(_text(error)) from error
        if failure:
            raise failure
        return answer

    def parameter(self, name: str) -> str:
        """A parameter that the server reported when the connection was made."""
        return (self._connection.parameter_status(name.encode()) or b"").decode()

    def hang_up(self) -> None:
        """Close the connection without waiting for the server."""
        self._connection.finish()

    def forget(self) -> None:
        """In a forked child: close the copy of the parent's socket without sending Terminate. libpq's part of it is
        never used again; psycopg does not finish it in a process that did not make it.
        """
        with suppress(OSError, Error):
            os.close(self._connection.socket)

    def _ask(self, batches: Sequence[Sequence[tuple[str, list[bytes | None]]]], deadline: float) -> list[Answers]:
        connection = self._connection
        connection.enter_pipeline_mode()
        # Statements to prepare: each is prepared just before its first use, and that is answered first.
        new: dict[str, bytes] = {}
        firsts: list[list[bool]] = []
        for batch in batches:
            firsts.append([])
            for sql, values in batch:
                name = self._prepared.get(sql) or new.get(sql)
                first = name is None and self._prepare and len(self._prepared) + len(new) < _MOST_PREPARED
                if first:
                    name = new[sql] = f"ledger_{next(self._names)}".encode()
                    connection.send_prepare(name, sql.encode())
                firsts[-1].append(first)
                if name is None:
                    connection.send_query_params(sql.encode(), values)
                else:
                    connection.send_query_prepared(name, values)
            connection.pipeline_sync()
        self._flush(deadline)
        answers = [self._answers(batch, first, new, deadline) for batch, first in zip(batches, firsts)]
        connection.exit_pipeline_mode()
        return answers

    def _answers(
        self, batch: Sequence[tuple[str, object]], firsts: Sequence[bool], new: dict[str, bytes], deadline: float
    ) -> Answers:
        answers: list[Answer] = []
        failure: ServerError | None = None
        for (sql, _), first in zip(batch, firsts):
            for preparing in (True, False) if first else (False,):
                result = self._next(deadline)
                if result is None:
                    raise Lost(self._connection.get_error_message())
                try:
                    if result.status != pq.ExecStatus.PIPELINE_ABORTED:
                        answer = _answer(result)
                        if preparing:
                            self._prepared[sql] = new[sql]
                        else:
                            answers.append(answer)
                except ServerError as error:
                    error.place, failure = len(answers), error
                # The end of one statement's results.
                self._next(deadline)
        # The end of the batch.
        self._next(deadline)
        return failure or answers

    def _next(self, deadline: float) -> PGresult | None:
        connection = self._connection
        while connection.is_busy():
            self._wait(deadline)
            connection.consume_input()
        return connection.get_result()

    def _flush(self, deadline: float) -> None:
        """Send everything, and read the server's answers meanwhile: the server stops reading while its own answers are not read."""
        connection = self._connection
        while connection.flush():
            self._poll.modify(connection.socket, select.POLLIN | select.POLLOUT)
            self._wait(deadline)
            self._poll.modify(connection.socket, select.POLLIN)
            connection.consume_input()

    def _wait(self, deadline: float) -> None:
        if not self._poll.poll(_milliseconds(deadline)):
            raise Overrun


def connect(attempts: Sequence[bytes], prepare: bool, deadline: float) -> Line:
    """A connection to the first host that accepts one. Each host has its share of the time that is left.

    Raises Overrun, Lost or ServerError: the error of the last host.
    """
    for place, attempt in enumerate(attempts):
        now = time.monotonic()
        try:
            return _connect(attempt, prepare, now + (deadline - now) / (len(attempts) - place))
        except (Overrun, Lost, ServerError):
            if place == len(attempts) - 1:
                raise
    raise AssertionError("an address must have at least one host")


def _connect(attempt: bytes, prepare: bool, deadline: float) -> Line:
    try:
        connection = pq.PGconn.connect_start(attempt)
    except Error as error:
        raise Lost(_text(error)) from error
    try:
        _finish_connecting(connection, deadline)
        connection.nonblocking = 1
        return Line(connection, prepare)
    except BaseException:
        connection.finish()
        raise


def _finish_connecting(connection: PGconn, deadline: float) -> None:
    if connection.status == pq.ConnStatus.BAD:
        raise Lost(connection.get_error_message())
    while True:
        status = connection.connect_poll()
        if status == pq.PollingStatus.OK:
            return
        if status == pq.PollingStatus.FAILED:
            raise Lost(connection.get_error_message())
        # The socket may change in each round: libpq tries the addresses of a host in turn.
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
        if not poll.poll(_milliseconds(deadline)):
            raise Overrun


def _encoded(values: Sequence[str | None]) -> list[bytes | None]:
    if "\0" in "".join(filter(None, values)):
        # libpq would read it as the end of the text.
        raise UnicodeError("PostgreSQL cannot store text with a zero byte in it")
    return [None if value is None else value.encode() for value in values]


def _answer(result: PGresult) -> Answer:
    if result.status == pq.ExecStatus.TUPLES_OK:
        value = result.get_value(0, 0) if result.ntuples else None
        return None if value is None else value.decode()
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY):
        return None
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    if state is None:
        # The error is libpq's, not the server's: the connection is lost.
        raise Lost(result.get_error_message())
    raise ServerError(
        state.decode(), (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
    )


def _milliseconds(deadline: float) -> int:
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))


def _text(error: Error) -> str:
    return str(error).strip()
