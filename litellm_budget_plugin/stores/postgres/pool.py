"""A bounded pool of connections, opened when they are needed, the one used last first.

There are no threads in it and no locks of Python's: a command may come from a finalizer in the middle of another one, in a child
after a fork that no hook has seen, and it may be interrupted anywhere. Lists, deques and SimpleQueues are enough: each of
their operations is one step, for whoever interrupts as for other threads.
"""

from __future__ import annotations

import os
import time
from collections import deque
from queue import Empty, SimpleQueue
from weakref import ref

from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.line import Line, Overrun, connect


class Place:
    """The right to use one connection. One that an interrupt has dropped between two calls goes back by itself."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = ref(pool)

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.leave(Place(pool))


class Pool:
    """The connections of one process to one address."""

    __slots__ = ("__weakref__", "_address", "_free", "_idle", "_waiting", "pid")

    def __init__(self, address: Address) -> None:
        self._address = address
        self.pid = os.getpid()
        self._idle: list[Line] = []
        self._free = [Place(self) for _ in range(address.pool_size)]
        self._waiting: deque[SimpleQueue[Place]] = deque()

    def enter(self, deadline: float) -> Place:
        """A place, to be followed by `leave`. Who comes first is served first: threads that come back at once would else
        take all places from those that wait. Raises Overrun if there is none until `deadline`.
        """
        if not self._waiting:
            try:
                return self._free.pop()
            except IndexError:
                pass
        gate: SimpleQueue[Place] = SimpleQueue()
        self._waiting.append(gate)
        # A place may have come free since.
        self._hand_out()
        try:
            return gate.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            pass
        try:
            self._waiting.remove(gate)
        except ValueError:
            # It is being handed a place at this moment; dropped with the gate, it would go back by itself.
            pass
        raise Overrun

    def leave(self, place: Place) -> None:
        """Let somebody else have the place."""
        self._free.append(place)
        if self._waiting:
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            try:
                place = self._free.pop()
            except IndexError:
                return
            try:
                gate = self._waiting.popleft()
            except IndexError:
                self._free.append(place)
                continue
            gate.put(place)

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
