"""A bounded pool of connections, opened when they are needed, the one used last first.

There are no threads in it and no locks of Python's: a command may come from a finalizer in the middle of another one, in a child
after a fork that no hook has seen, and it may be interrupted anywhere.
"""

from __future__ import annotations

import os
import time
from queue import Empty, SimpleQueue
from weakref import ref

from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.line import Line, Overrun, connect


class Place:
    """The right to use one connection. One that an interrupt has dropped between two calls goes back by itself."""

    __slots__ = ("_home",)

    def __init__(self, home: SimpleQueue[Place]) -> None:
        self._home = ref(home)

    def __del__(self) -> None:
        home = self._home()
        if home is not None:
            home.put(Place(home))


class Pool:
    """The connections of one process to one address."""

    __slots__ = ("_address", "_idle", "_places", "pid")

    def __init__(self, address: Address) -> None:
        self._address = address
        self.pid = os.getpid()
        self._idle: list[Line] = []
        # SimpleQueue may be used by whoever interrupts another use of it.
        self._places: SimpleQueue[Place] = SimpleQueue()
        for _ in range(address.pool_size):
            self._places.put(Place(self._places))

    def enter(self, deadline: float) -> Place:
        """A place, to be followed by `leave`. Raises Overrun if other threads have all of them until `deadline`."""
        try:
            return self._places.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise Overrun from None

    def leave(self, place: Place) -> None:
        """Let somebody else have the place."""
        self._places.put(place)

    def idle(self) -> Line | None:
        """The connection that was used last, if there is one. What is not given to `keep` afterwards closes by itself."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def open(self, deadline: float) -> Line:
        """A new connection. Raises what `line.connect` does."""
        return connect(self._address.attempts, self._address.prepare, deadline)

    def keep(self, line: Line) -> None:
        """Take a connection back that is still of use."""
        self._idle.append(line)

    def clear(self) -> None:
        """Close the idle connections; in a child of the process that made them, without a word to the server."""
        ours = self.pid == os.getpid()
        while (line := self.idle()) is not None:
            if ours:
                line.hang_up()
            else:
                line.forget()
