"""Removal of subjects that have ended, such as runs: every piece of an agent's work adds a new run to the ledger."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from itertools import groupby

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import (
    Accounts,
    AccountState,
    Command,
    DropBudget,
    Read,
    ReadUsage,
    Reply,
    UsageRows,
)
from litellm_budget_plugin.core.windows import CREDIT, DAY
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable

_logger = logging.getLogger("litellm_budget_plugin")
_SCOPE = "run"

Ask = Callable[[Command], Reply]
Ended = Callable[[Ask, str, tuple[AccountState, ...], int], bool]
"""A function that says whether a subject has ended, from its id, its accounts and the store's clock (microseconds)."""


class Forgotten:
    """Removes a scope's subjects that have `ended`, one page at a time, because reading all of them at once would take too long."""

    def __init__(self, project: str, scope: str, ended: Ended, page: int = 1000) -> None:
        self._project, self._scope, self._is_over, self._page = project, scope, ended, page
        self._after: str | None = ""

    @property
    def in_round(self) -> bool:
        """Whether pages of this round are left."""
        return bool(self._after)

    def forget(self, ask: Ask) -> int:
        """Check the next page of subjects, and return how many were forgotten."""
        reply = ask(Read(self._project, self._scope, after=self._after or "", page=self._page))
        if not isinstance(reply, Accounts):
            return 0
        self._after = reply.after
        ended = 0
        for name, found in groupby(reply.accounts, key=lambda state: state.ref.subject):
            states = tuple(found)
            if not self._is_over(ask, name, states, reply.now):
                continue
            # `seen`: if a call has changed the accounts meanwhile, they stay.
            subject = Subject(self._scope, name)
            try:
                ask(DropBudget(f"ended:{uuid.uuid4().hex}", self._project, subject, seen=states))
            except BudgetStoreUnavailable:
                raise
            except (BudgetInputError, BudgetStoreError) as error:
                # The key only reads, or the endpoint has an earlier version: another process removes them.
                _logger.debug("ended subjects are not removed by this process: %s", error)
                break
            ended += 1
        return ended


class EndedRuns(Forgotten):
    """Removes a project's runs that were not used for `kept` microseconds; blocked ones after the longer of `kept` and `blocked_kept`.
    Totals stay, and so do runs with a balance.
    """

    def __init__(self, project: str, kept: int, blocked_kept: int) -> None:
        super().__init__(project, _SCOPE, self._ended)
        self._kept, self._blocked_kept = kept, max(kept, blocked_kept)

    def _ended(self, ask: Ask, run: str, states: tuple[AccountState, ...], now: int) -> bool:
        before = now - (self._blocked_kept if any(state.blocked for state in states) else self._kept)
        if any(state.held or state.created_at >= before or state.ref.window == CREDIT for state in states):
            return False
        reply = ask(ReadUsage(self._project, _SCOPE, run, since=before // DAY))
        return isinstance(reply, UsageRows) and not reply.rows
