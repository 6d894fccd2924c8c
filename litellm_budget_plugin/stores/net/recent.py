"""The rows that a client of a server remembers."""

from __future__ import annotations

from contextlib import suppress
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_KEPT = 10_000


class Recent(Generic[K, V]):
    """The values put in last. Each operation of a dictionary is atomic for other threads and for interrupts."""

    def __init__(self) -> None:
        self._values: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value of a key, None if it is not here."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop the oldest if there are too many."""
        self._values.pop(key, None)
        self._values[key] = value
        while len(self._values) > _KEPT:
            # Another thread may be doing the same.
            with suppress(KeyError, RuntimeError, StopIteration):
                del self._values[next(iter(self._values))]

    def drop(self, key: K) -> None:
        """Drop a key, if it is here."""
        self._values.pop(key, None)
