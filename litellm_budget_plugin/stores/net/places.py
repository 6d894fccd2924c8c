"""Who may use a connection: a bounded number of places, handed out in the order in which they were asked for.

There are no locks of Python's in it: a command may come from a finalizer in the middle of another one, in a child after a fork
that no hook has seen, and it may be interrupted anywhere. Lists, deques and SimpleQueues are enough: each of their
operations is one step, for an interrupt as for other threads.
"""

from __future__ import annotations

import time
from collections import deque
from queue import Empty, SimpleQueue
from weakref import ref


class NoPlace(Exception):
    """Other threads have had all places until the deadline."""


class Place:
    """The right to use one connection. One that an interrupt has dropped between two calls goes back by itself."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = ref(places)

    def __del__(self) -> None:
        places = self._places()
        if places is not None:
            places.leave(Place(places))


class Places:
    """A number of places. Who comes first is served first: threads that come back at once would else take all places from
    those that wait.
    """

    __slots__ = ("__weakref__", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = [Place(self) for _ in range(count)]
        self._waiting: deque[SimpleQueue[Place]] = deque()

    @property
    def free(self) -> int:
        """How many nobody has."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """How many threads wait for one."""
        return len(self._waiting)

    def enter(self, deadline: float) -> Place:
        """A place, to be followed by `leave`. Raises NoPlace if there is none until `deadline` (of time.monotonic)."""
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
            # It is being handed a place at this moment; dropped with the gate, it goes back by itself.
            pass
        raise NoPlace

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
