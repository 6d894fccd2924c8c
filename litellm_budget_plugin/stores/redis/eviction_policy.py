"""The check whether a server may keep a ledger, made on every new connection."""

from __future__ import annotations

import logging
import re

from redis.exceptions import ResponseError

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.redis.failures import code_of
from litellm_budget_plugin.stores.redis.lines import Line

_log = logging.getLogger("litellm_budget_plugin")

_SAFE = "noeviction"
_NEVER_MIND = ("NOAUTH", "WRONGPASS", "LOADING")


class EvictionPolicyCheck:
    """A check of the servers of one address. An evicted account would be a user without a limit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._warned = False

    def __call__(self, line: Line, deadline: float) -> None:
        """Raise BudgetStoreError if the server may evict keys. Log one WARNING if the server does not report its policy."""
        policy = self._policy(line, deadline)
        if policy is None:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "%s: neither CONFIG GET nor INFO shows what the server does when its memory is full; make sure that "
                    "its maxmemory-policy is %s: an evicted account is a user without a limit",
                    self._name,
                    _SAFE,
                )
        elif policy != _SAFE:
            raise BudgetStoreError(
                f"the server evicts keys when its memory is full (maxmemory-policy {policy}), and an evicted account is a "
                f"user without a limit; set maxmemory-policy {_SAFE}, or keep the ledger on a server of its own"
            )

    def _policy(self, line: Line, deadline: float) -> str | None:
        answer = line.ask("CONFIG", "GET", "maxmemory-policy", deadline=deadline)
        if isinstance(answer, list) and len(answer) == 2:
            return str(answer[1].decode())
        if isinstance(answer, ResponseError) and code_of(answer) in _NEVER_MIND:
            raise answer
        told = line.ask("INFO", "memory", deadline=deadline)
        found = re.search(rb"maxmemory_policy:(\S+)", told) if isinstance(told, bytes) else None
        return None if found is None else found[1].decode()
