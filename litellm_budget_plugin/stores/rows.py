"""Raw rows of a ledger, to be copied from one store into another."""

from __future__ import annotations

from typing import NamedTuple

from litellm_budget_plugin.core.accounts import Account, Hold, Usage, UsageKey
from litellm_budget_plugin.core.row_store import Changes, RowStore


class Rows(NamedTuple):
    """Some rows of one project: accounts, holds and marks, totals."""

    accounts: tuple[Account, ...] = ()
    holds: tuple[Hold, ...] = ()
    usage: tuple[tuple[UsageKey, Usage], ...] = ()


class Page(NamedTuple):
    """Rows, and the position from which to continue: None at the end."""

    rows: Rows
    after: str | None


def load(book: RowStore, project: str, rows: Rows) -> None:
    """Put rows in place of those with the same keys, in one step of the book."""
    usage = {}
    for key, total in rows.usage:
        # A book adds to totals: what is added is the difference to the wanted total.
        recorded = book.usage(project, key) or Usage()
        usage[key] = Usage(*(wanted - there for wanted, there in zip(total, recorded)))
    accounts = {account.ref: account.copy() for account in rows.accounts}
    book.write(project, Changes({**accounts}, {hold.id: hold.copy() for hold in rows.holds}, usage))
