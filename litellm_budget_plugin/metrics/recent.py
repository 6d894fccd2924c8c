"""What tells a charge that is sent again from a new one: a store gives both the same reply."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 10_000
"""Many times what is sent in one round trip."""


class Recent:
    """The latest ids that were seen. Needs no lock: each step of a dictionary and a deque is atomic."""

    def __init__(self) -> None:
        self._ids: dict[str, object] = {}
        self._order: deque[str] = deque()

    def is_new(self, id_: str) -> bool:
        """Whether the id has not been seen lately; it has been from now on."""
        mine = object()
        if self._ids.setdefault(id_, mine) is not mine:
            return False
        self._order.append(id_)
        if len(self._order) > _REMEMBERED:
            self._ids.pop(self._order.popleft(), None)
        return True
