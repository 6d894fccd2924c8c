"""The running of scripts: on the server that has the project, repeated while another server may take over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.redis.address import Address
from litellm_budget_plugin.stores.redis.eviction_policy import EvictionPolicyCheck
from litellm_budget_plugin.stores.redis.failures import LOST, code_of, explained, is_temporary
from litellm_budget_plugin.stores.redis.lines import Lines
from litellm_budget_plugin.stores.redis.names import project_of
from litellm_budget_plugin.stores.redis.scripts import Request, packed_words
from litellm_budget_plugin.stores.redis.topology import route_to

T = TypeVar("T")

_PAUSE = 0.02
"""The pause (seconds) before asking again which server has the project."""

_inherited: list[object] = []
"""Connections that a fork copied into this process: never used and never closed."""


class Server:
    """The servers of one address. Connections are opened when needed, and used only by the process that opened them.
    `timeout` (seconds) bounds each connection attempt.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.name = address.name
        self._address, self._timeout = address, timeout
        self._vetting = EvictionPolicyCheck(address.name)
        self._route = route_to(address, timeout, self._vetting)
        self._pid = os.getpid()
        self._closed = False

    def answer(self, request: Request, deadline: float) -> Any:
        """Return the result of a script. Raises BudgetStoreError if it could not be run. It may be run twice if an answer is lost."""
        return self._patiently(lambda: self._run(request, deadline), deadline)

    def tell(self, request: Request, deadline: float) -> None:
        """Run a script without waiting for it. Failures are ignored."""
        if self._pid == os.getpid() and not self._closed:
            with suppress(*LOST):
                self._route.lines(request.root, deadline).tell(request.packed(whole=True), deadline)

    def _run(self, request: Request, deadline: float) -> Any:
        lines = self._route.lines(request.root, deadline)
        (answer,) = lines.exchange([request.packed()], deadline)
        if isinstance(answer, Exception) and code_of(answer) == "NOSCRIPT":
            (answer,) = lines.exchange([request.packed(whole=True)], deadline)
        if isinstance(answer, Exception):
            raise _Refused(answer)
        return answer

    def projects(self, deadline: float) -> list[str]:
        """Every project that has a row, sorted by code point."""
        return sorted(self._patiently(lambda: self._projects(deadline), deadline))

    def _projects(self, deadline: float) -> set[str]:
        found = set[str]()
        for lines in self._route.everywhere(deadline):
            cursor = b"0"
            while True:
                # Keys that end with a letter: so the keys of subjects, which are most of all keys, stay on the server.
                pattern = f"{self._address.prefix}{{*}}:[acht1wzilb]*".encode()
                words = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000")
                cursor, keys = self._said(lines, [packed_words(*words)], deadline)[0]
                found.update(self._projects_of(lines, keys, deadline))
                if cursor == b"0":
                    break
        return found

    def _projects_of(self, lines: Lines, keys: list[bytes], deadline: float) -> set[str]:
        """The projects that have rows under some keys. Keys that had rows in version 1 may now hold a text, which does not count."""
        named = [
            (key, project) for key in keys if (project := project_of(self._address.prefix, key.decode())) is not None
        ]
        kinds = self._said(lines, [packed_words(b"TYPE", key) for key, _ in named], deadline) if named else []
        return {project for (_, project), kind in zip(named, kinds) if kind in (b"hash", b"zset")}

    def _said(self, lines: Lines, packed: list[bytes], deadline: float) -> list[Any]:
        answers = lines.exchange(packed, deadline)
        for answer in answers:
            if isinstance(answer, Exception):
                raise _Refused(answer)
        return answers

    def _patiently(self, attempt: Callable[[], T], deadline: float) -> T:
        """Return the result of `attempt`, tried again until the deadline while another server may take over."""
        if self._closed:
            raise BudgetStoreError(f"{self.name}: this store was closed")
        if self._pid != os.getpid():  # also after a fork that Python does not see, as uWSGI's
            self._keep_inherited()
        began, said = time.monotonic(), None
        while True:
            try:
                return attempt()
            except (*LOST, _Refused, BudgetStoreError) as error:
                cause = error.reply if isinstance(error, _Refused) else error
                said = cause if code_of(cause) else said
                temporary = is_temporary(cause)
                self._route.forget()
                if self._route.moves and temporary and time.monotonic() + _PAUSE < deadline:
                    time.sleep(_PAUSE)
                    continue
                if temporary and said is not None:
                    # More informative than a time-out of the last attempt.
                    raise explained(said, self.name, deadline - began) from cause
                if isinstance(error, BudgetStoreError):
                    raise type(error)(f"{self.name}: {error}") from error.__cause__
                raise explained(cause, self.name, deadline - began) from cause

    def close(self) -> None:
        """Close the connections."""
        self._closed = True
        if self._pid == os.getpid():
            self._route.close()

    def renew(self) -> None:
        """Close the connections and continue with new ones."""
        self._route.close()
        self._route = route_to(self._address, self._timeout, self._vetting)

    def _keep_inherited(self) -> None:
        self._pid = os.getpid()
        _inherited.append(self._route)
        self._route = route_to(self._address, self._timeout, self._vetting)


class _Refused(Exception):
    """The server has answered with an error."""

    def __init__(self, reply: Exception) -> None:
        super().__init__(f"{reply}")
        self.reply = reply
