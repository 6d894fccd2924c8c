"""The connections to one PostgreSQL address."""

from __future__ import annotations

from litellm_budget_plugin.stores.net import pool
from litellm_budget_plugin.stores.postgres.address import Address
from litellm_budget_plugin.stores.postgres.line import Line, connect


class Pool(pool.Pool[Line]):
    """A pool that also opens connections."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.pool_size)
        self._address = address

    def open(self, deadline: float) -> Line:
        """A new connection. Raises the errors of `line.connect`."""
        return connect(self._address.attempts, self._address.prepare, deadline)
