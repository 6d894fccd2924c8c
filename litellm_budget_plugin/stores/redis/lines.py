"""Connections to one server of Redis: each exchange ends within its deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ResponseError
from redis.retry import Retry

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.net.background_connect import BackgroundConnect, ConnectAbandoned
from litellm_budget_plugin.stores.net.places import NoPlace, Place
from litellm_budget_plugin.stores.net.pool import Pool
from litellm_budget_plugin.stores.redis.address import Address
from litellm_budget_plugin.stores.redis.failures import LOST

P = TypeVar("P")
T = TypeVar("T")

Answer = Any
"""The result that the server returned, or the ResponseError that it returned instead."""


class _Bounded:
    """A socket whose sends and receives end together at a deadline, even if the data arrives slowly."""

    __slots__ = ("_socket", "deadline")

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._socket = plain
        self.deadline = deadline

    def _limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time limit has passed")
        self._socket.settimeout(left)

    def sendall(self, data: bytes) -> None:
        self._limit()
        self._socket.sendall(data)

    def recv(self, *args: Any) -> bytes:
        self._limit()
        return self._socket.recv(*args)

    def recv_into(self, *args: Any) -> int:
        self._limit()
        return self._socket.recv_into(*args)

    def settimeout(self, _: float | None) -> None:
        """Ignored: the deadline applies."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class Line:
    """One connection. `connection` is redis-py's: it logs in, packs commands and reads answers."""

    __slots__ = ("_unread", "connection")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._unread = 0

    def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Answer]:
        """Send commands together and read the answer to each. Raises one of LOST if the connection is no longer usable."""
        self._send(packed, deadline)
        # The answers to earlier `tell` commands come first.
        while self._unread:
            self._read()
            self._unread -= 1
        return [self._read() for _ in packed]

    def tell(self, packed: bytes, deadline: float) -> None:
        """Send a command. Its answer is read by the next exchange."""
        self._send([packed], deadline)
        self._unread += 1

    def _send(self, packed: Sequence[bytes], deadline: float) -> None:
        self.connection._sock.deadline = deadline  # noqa: SLF001  # put there by _bounded
        self.connection.send_packed_command([b"".join(packed)], check_health=False)

    def _read(self) -> Answer:
        try:
            return self.connection.read_response()
        except ResponseError as error:
            return error

    def ask(self, *arguments: str, deadline: float) -> Answer:
        """The answer to one command that is not a script."""
        return self.exchange([b"".join(self.connection.pack_command(*arguments))], deadline)[0]

    def hang_up(self) -> None:
        """Close the connection."""
        self.connection.disconnect()

    def forget(self) -> None:
        """Do nothing: `asking` keeps the parent's connections untouched."""


def _bounded(kind: type[Any], deadline: float) -> type[Any]:
    class Bounded(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            return _Bounded(super()._connect(), deadline)

    return Bounded


def dial(address: Address, node: tuple[str, int] | None, sentinel: bool, seconds: float) -> Line:
    """A connection to one node of an address, logged in. Blocks for up to `seconds`, or longer while a name is resolved."""
    options: dict[str, Any] = {
        "username": address.sentinel_username if sentinel else address.username,
        "password": address.sentinel_password if sentinel else address.password,
        "db": 0 if sentinel else address.db,
        "protocol": 2,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    kind: type[Any]
    if node is None:
        kind, options["path"] = UnixDomainSocketConnection, address.path
    else:
        kind = Connection if address.tls is None else SSLConnection
        options.update(host=node[0], port=node[1], **(address.tls or {}))
    connection = _bounded(kind, time.monotonic() + seconds)(**options)
    connection.connect()
    return Line(connection)


class Lines(Pool[Line]):
    """The connections to one server, at most `most` of them."""

    def __init__(self, open_line: Callable[[], Line], most: int) -> None:
        super().__init__(most)
        self._open_line = open_line

    def exchange(self, packed: Sequence[bytes], deadline: float) -> list[Answer]:
        """Send commands over one of the connections and read the answers.

        Raises one of LOST if that fails, BudgetStoreUnavailable if no connection becomes free in time, and the errors of opening one.
        """
        try:
            place = self.places.enter(deadline)
        except NoPlace:
            raise BudgetStoreUnavailable(
                f"all {self.most} connections to the server are busy (more by ?connections=)"
            ) from None
        ours = True
        try:
            line = self.idle()
            if line is not None:
                try:
                    return self._use(line, line.exchange, packed, deadline)
                except LOST:
                    # The server may have closed the idle connection. Commands may be sent twice: their ids prevent a double count.
                    if time.monotonic() >= deadline:
                        raise
            try:
                line = BackgroundConnect(self._open_line, partial(self._give, place)).result(deadline)
            except ConnectAbandoned as left:
                ours = False
                raise left.__cause__ or TimeoutError() from None
            return self._use(line, line.exchange, packed, deadline)
        finally:
            if ours:
                self.places.leave(place)

    def tell(self, packed: bytes, deadline: float) -> None:
        """Send a command over an idle connection, if there is one, and do not wait for the answer."""
        try:
            place = self.places.enter(deadline)
        except NoPlace:
            return
        try:
            line = self.idle()
            if line is not None:
                self._use(line, line.tell, packed, deadline)
        finally:
            self.places.leave(place)

    def _use(self, line: Line, use: Callable[[P, float], T], packed: P, deadline: float) -> T:
        try:
            answers = use(packed, deadline)
        except BaseException:
            # A late answer on this connection would be taken for the answer to another command.
            line.hang_up()
            raise
        self.keep(line)
        return answers

    def _give(self, place: Place, line: Line | None) -> None:
        if line is not None:
            self.keep(line)
        self.places.leave(place)
