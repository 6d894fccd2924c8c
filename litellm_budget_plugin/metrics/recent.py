"""A memory of recent ids. It tells a repeated charge from a new one, because a store gives both the same reply."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 10_000
"""Many times the number of charges in one round trip."""


class Recent:
    """The latest ids that were seen. It needs no lock, because each operation on a dictionary or a deque is atomic."""

    def __init__(self) -> None:
        self._ids: dict[str, object] = {}
        self._order: deque[str] = deque()

    def is_new(self, id_: str) -> bool:
        """Remember the id, and return whether it was not seen lately."""
        mine = object()
        if self._ids.setdefault(id_, mine) is not mine:
            return False
        self._order.append(id_)
        if len(self._order) > _REMEMBERED:
            self._ids.pop(self._order.popleft(), None)
        return True
