"""The store behind a self-hosted endpoint: every command is one HTTP request, and the rules run on the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard, get_args

from litellm_budget_plugin.core import wire
from litellm_budget_plugin.core.commands import Command, Reply
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.stores.http.client import HttpClient, TooLarge
from litellm_budget_plugin.stores.http.rows import rows_from, rows_to
from litellm_budget_plugin.stores.protocol import Outcome
from litellm_budget_plugin.stores.rows import Page, Rows

_log = logging.getLogger("litellm_budget_plugin")

PROTOCOL = 3
"""The version of the protocol that this client speaks."""
_BATCH = 500


def is_reply(message: Command | Reply) -> TypeGuard[Reply]:
    """Whether a message is an answer."""
    return isinstance(message, get_args(Reply))


class HttpStore:
    """A ledger behind `litellm-budget serve`. The server's clock counts.

    A command that was sent may be sent again, by this class or by its caller: its id makes it count once.
    """

    remote = True

    def __init__(
        self, exchange: HttpClient, *, read_only: bool = False, test_clock: bool = False, timeout: float = 2.0
    ) -> None:
        self._exchange, self._test_clock, self._timeout = exchange, test_clock, timeout
        self.read_only = read_only
        """Whether the key only permits reading, as it was when the store was opened."""
        _log.info("the budget ledger is %s", exchange.name)

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        """Apply a command and answer it. `timeout` (seconds) bounds all of it: waiting, connecting, sending and receiving."""
        return self._reply(self._post("/v1/command", self._encoded(command), timeout))

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        """Apply commands one after the other, up to 500 in a request, and answer each."""
        until = time.monotonic() + self._seconds(timeout)
        outcomes: list[Outcome] = []
        for first in range(0, len(commands), _BATCH):
            outcomes += self._sent([self._encoded(command) for command in commands[first : first + _BATCH]], until)
        return outcomes

    def _sent(self, some: list[dict[str, Any]], until: float) -> list[Outcome]:
        try:
            answer = self._post("/v1/commands", {"commands": some}, until - time.monotonic())
        except BudgetInputError as error:
            # This refuses the request as a whole: no command was examined, so none may be given up.
            raise BudgetStoreError(f"{self._exchange.name} refuses a batch: {error}") from error
        except TooLarge:
            if len(some) == 1:
                raise
            half = len(some) // 2
            return [*self._sent(some[:half], until), *self._sent(some[half:], until)]
        said = answer.get("outcomes") if isinstance(answer, dict) else None
        if not isinstance(said, list) or len(said) != len(some):
            raise self._odd("the outcome of each command")
        return [self._outcome(each) for each in said]

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else min(timeout, self._timeout)

    def _encoded(self, command: Command) -> dict[str, Any]:
        return wire.encode(command if self._test_clock else replace(command, now=None))

    def _post(self, path: str, body: object, timeout: float | None) -> Any:
        return self._exchange.post(path, body, time.monotonic() + self._seconds(timeout))

    def _outcome(self, data: Any) -> Outcome:
        if isinstance(data, dict) and data.get("type") == "BudgetInputError":
            return BudgetInputError(str(data.get("message")))
        return self._reply(data)

    def _reply(self, data: Any) -> Reply:
        try:
            message = wire.decode(data)
        except BudgetInputError as error:
            raise self._odd("a reply", error) from error
        if not is_reply(message):
            raise self._odd("a reply")
        return message

    def _odd(self, wanted: str, error: Exception | None = None) -> BudgetStoreError:
        why = f" ({error})" if error else ""
        return BudgetStoreError(
            f"{self._exchange.name} did not answer with {wanted}{why}; is another server in between?"
        )

    def sync(self) -> None:
        """Have the server's store make acknowledged charges survive a power cut. The server also does so by itself each second."""
        if not self._exchange.closed and not self.read_only:
            self._post("/v1/sync", {}, None)

    def projects(self) -> list[str]:
        """The projects that the key opens and that have a row."""
        until = time.monotonic() + self._timeout
        answer = self._exchange.decoded("/v1/projects", self._exchange.request("GET", "/v1/projects", None, until))
        if not isinstance(answer, dict) or not isinstance(answer.get("projects"), list):
            raise self._odd("a list of projects")
        return [str(project) for project in answer["projects"]]

    def export(self, project: str, after: str, most: int) -> Page:
        """Some raw rows of a project."""
        answer = self._post("/v1/rows/read", {"project": project, "after": after, "most": most}, None)
        if not isinstance(answer, dict) or answer.keys() != {"rows", "after"}:
            raise self._odd("a page of rows")
        try:
            return Page(rows_from(answer["rows"]), answer["after"])
        except BudgetInputError as error:
            raise self._odd("a page of rows", error) from error

    def load(self, project: str, rows: Rows) -> None:
        """Put rows in place of those with the same keys."""
        self._post("/v1/rows/write", {"project": project, "rows": rows_to(rows)}, None)

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()
