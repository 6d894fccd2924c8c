"""The connections of one process to one server: a bounded number, opened when needed; the last one used is used next.

There are no locks: a finalizer or a signal handler may ask in the middle of anything. See places.py for the order of waiting threads.
"""

from __future__ import annotations

import os
from typing import Generic, Protocol, TypeVar

from litellm_budget_plugin.stores.net.places import Places


class _Connection(Protocol):
    def hang_up(self) -> None: ...
    def forget(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class Pool(Generic[C]):
    """A pool of idle connections. The user of a connection holds one of the `most` `places`."""

    def __init__(self, most: int) -> None:
        self.pid = os.getpid()
        self.places = Places(most)
        self.most = most
        self._idle: list[C] = []
        self._closed = False

    def idle(self) -> C | None:
        """The connection used last, None if none is idle. Give it to `keep` afterwards, or close it."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def keep(self, connection: C) -> None:
        """Take back a connection that is still usable."""
        self._idle.append(connection)
        if self._closed:
            self.clear()

    def clear(self) -> None:
        """Close the idle connections; in a child of the process that made them, without sending anything."""
        while (connection := self.idle()) is not None:
            (connection.hang_up if self.pid == os.getpid() else connection.forget)()

    def close(self) -> None:
        """Close the idle connections now, and the others when they are given back."""
        self._closed = True
        self.clear()
