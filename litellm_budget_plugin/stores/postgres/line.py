"""One connection to a PostgreSQL server, on which every wait ends at a deadline.

psycopg's own connections wait for a server for as long as TCP does. Here the socket is waited for by a loop of our own around
libpq's calls that do not block (https://www.postgresql.org/docs/current/libpq-async.html), in the same thread. Only the
resolution of a host's name, which libpq leaves to the system, may take as long as the system wants.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Union

from psycopg import Error, pq

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

Statement = tuple[str, Sequence[str]]
"""SQL with $1, $2, ... and the values for them."""


class Overrun(Exception):
    """The deadline came first."""


class Lost(Exception):
    """The connection broke, or could not be made. Whether a command that was sent was applied is not known."""


class ServerError(Exception):
    """The server's answer to a statement. `state` is its SQLSTATE."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


Answer = Union[str, None, ServerError]
"""The first column of a statement's first row (None if there is none), or why it failed."""


class Line:
    """A connection. Not safe for threads: whoever has taken it from the pool has it alone.

    A line on which Overrun, Lost or an interrupt was raised is of no more use.
    """

    __slots__ = ("_connection", "_poll", "_prepare", "_prepared")

    def __init__(self, connection: PGconn, prepare: bool) -> None:
        self._connection = connection
        self._prepare = prepare
        self._prepared: dict[str, bytes] = {}
        self._poll = select.poll()
        self._poll.register(connection.socket, select.POLLIN)

    def ask(self, statements: Sequence[Statement], deadline: float) -> list[Answer]:
        """The answer to each statement, which is a transaction of its own. All are one round trip, once this line has
        prepared them. Raises Overrun when `deadline` (time.monotonic) has passed, and Lost.
        """
        try:
            if self._prepare:
                self._prepare_new(statements, deadline)
            if len(statements) == 1:
                self._send(*statements[0])
                return self._answers(deadline)
            return self._ask_many(statements, deadline)
        except Error as error:
            raise Lost(_text(error)) from error

    def run(self, script: str, deadline: float) -> list[Answer]:
        """The answers to the statements of a script, which ends at the first error. Raises like `ask`."""
        try:
            self._connection.send_query(script.encode())
            return self._answers(deadline)
        except Error as error:
            raise Lost(_text(error)) from error

    def parameter(self, name: str) -> str:
        """What the server has said of itself when the connection was made."""
        return (self._connection.parameter_status(name.encode()) or b"").decode()

    def hang_up(self) -> None:
        """Close the connection without waiting for anybody."""
        self._connection.finish()

    def forget(self) -> None:
        """In a forked child: let go of the copy of the parent's socket without a word to the server. libpq's part of it is
        never touched again; psycopg does not end it in a process that has not made it.
        """
        with suppress(OSError, Error):
            os.close(self._connection.socket)

    def _prepare_new(self, statements: Sequence[Statement], deadline: float) -> None:
        for sql, _ in statements:
            if sql not in self._prepared:
                name = f"ledger_{len(self._prepared)}".encode()
                self._connection.send_prepare(name, sql.encode())
                [answer] = self._answers(deadline)
                if isinstance(answer, ServerError):
                    raise answer
                self._prepared[sql] = name

    def _send(self, sql: str, values: Sequence[str]) -> None:
        encoded = [value.encode() for value in values]
        if self._prepare:
            self._connection.send_query_prepared(self._prepared[sql], encoded)
        else:
            self._connection.send_query_params(sql.encode(), encoded)

    def _ask_many(self, statements: Sequence[Statement], deadline: float) -> list[Answer]:
        connection = self._connection
        connection.enter_pipeline_mode()
        for statement in statements:
            self._send(*statement)
            connection.pipeline_sync()
        self._flush(deadline)
        answers: list[Answer] = []
        for _ in statements:
            answers += self._results(deadline)
            # The end of one statement's results, then the end of its transaction.
            self._next(deadline)
        connection.exit_pipeline_mode()
        return answers

    def _answers(self, deadline: float) -> list[Answer]:
        self._flush(deadline)
        return self._results(deadline)

    def _results(self, deadline: float) -> list[Answer]:
        answers: list[Answer] = []
        while (result := self._next(deadline)) is not None:
            answers.append(_answer(result))
        return answers

    def _next(self, deadline: float) -> PGresult | None:
        connection = self._connection
        while connection.is_busy():
            self._wait(deadline)
            connection.consume_input()
        return connection.get_result()

    def _flush(self, deadline: float) -> None:
        """Send everything, and take in what the server says meanwhile: it reads no more while its own answers wait."""
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
    """A connection to the first host that takes one. Each host has its share of the time that is left.

    Raises Overrun, Lost or ServerError, whichever was the last host's.
    """
    for place, attempt in enumerate(attempts):
        now = time.monotonic()
        try:
            return _connect(attempt, prepare, now + (deadline - now) / (len(attempts) - place))
        except (Overrun, Lost, ServerError):
            if place == len(attempts) - 1:
                raise
    raise AssertionError("an address has at least one host")


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
        # The socket may be another one in each round: libpq goes through the addresses of a host.
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
        if not poll.poll(_milliseconds(deadline)):
            raise Overrun


def _answer(result: PGresult) -> Answer:
    if result.status == pq.ExecStatus.TUPLES_OK:
        value = result.get_value(0, 0) if result.ntuples else None
        return None if value is None else value.decode()
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY):
        return None
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    if state is None:
        # libpq's own words, not the server's: the connection is gone.
        raise Lost(result.get_error_message())
    return ServerError(
        state.decode(), (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
    )


def _milliseconds(deadline: float) -> int:
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))


def _text(error: Error) -> str:
    return str(error).strip()
