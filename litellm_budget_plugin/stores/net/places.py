"""The places of a connection pool: a bounded number, handed out in the order of the requests.

This module uses no Python locks: a command may come from a finalizer in the middle of another one, or in a child after
a fork that no hook has seen, and it may be interrupted anywhere. Lists, deques and SimpleQueues suffice: each of their
operations is atomic for interrupts and for other threads.
"""

from __future__ import annotations

import time
from collections import deque
from queue import Empty, SimpleQueue
from weakref import ref


class NoPlace(Exception):
    """Other threads held all places until the deadline."""


class Place:
    """The right to use one connection. A place that an interrupt has dropped between two calls returns by itself."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = ref(places)

    def __del__(self) -> None:
        places = self._places()
        if places is not None:
            places.leave(Place(places))


class Places:
    """A number of places, handed out in order: otherwise, threads that return at once would take all places from waiting ones."""

    __slots__ = ("__weakref__", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = [Place(self) for _ in range(count)]
        self._waiting: deque[SimpleQueue[Place]] = deque()

    @property
    def free(self) -> int:
        """The number of free places."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """The number of waiting threads."""
        return len(self._waiting)

    def enter(self, deadline: float) -> Place:
        """Return a place, to be given back to `leave`. Raises NoPlace if none is free by `deadline` (of time.monotonic)."""
        if not self._waiting:
            try:
                return self._free.pop()
            except IndexError:
                pass
        gate: SimpleQueue[Place] = SimpleQueue()
        self._waiting.append(gate)
        # A place may have become free since.
        self._hand_out()
        try:
            return gate.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            pass
        try:
            self._waiting.remove(gate)
        except ValueError:
            # It is being handed a place at this moment. The place is dropped with the gate, and returns by itself.
            pass
        raise NoPlace

    def leave(self, place: Place) -> None:
        """Give the place back, to a waiting thread if there is one."""
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
