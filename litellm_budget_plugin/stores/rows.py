"""Rows of a ledger as they lie in a store, to be copied into another one."""

from __future__ import annotations

from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Account, Hold, Usage, UsageKey


class Rows(NamedTuple):
    """Some rows of one project: accounts, holds and marks, totals."""

    accounts: tuple[Account, ...] = ()
    holds: tuple[Hold, ...] = ()
    usage: tuple[tuple[UsageKey, Usage], ...] = ()


class Page(NamedTuple):
    """Rows, and where to go on from: None at the end."""

    rows: Rows
    after: str | None
