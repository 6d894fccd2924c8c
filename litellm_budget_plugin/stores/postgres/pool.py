"""A bounded pool of connections, opened when they are needed, the one used last first. See stores/net/places.py for who may have one."""

from __future__ import annotations

import os

from litellm_budget_plugin.stores.net.places import Places
from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.line import Line, connect


class Pool:
    """The connections of one process to one address. The user of one has one of the `places`."""

    __slots__ = ("_address", "_idle", "pid", "places")

    def __init__(self, address: Address) -> None:
        self._address = address
        self.pid = os.getpid()
        self.places = Places(address.pool_size)
        self._idle: list[Line] = []

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
        """Close the idle connections; in a child of the process that made them, without sending Terminate."""
        ours = self.pid == os.getpid()
        while (line := self.idle()) is not None:
            if ours:
                line.hang_up()
            else:
                line.forget()
