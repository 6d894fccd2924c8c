"""Rows of another ledger as changes to a book: how the stores that keep a `core.row_store.RowStore` load them."""

from __future__ import annotations

from litellm_budget_plugin.core.accounts import Usage
from litellm_budget_plugin.core.row_store import Changes, RowStore
from litellm_budget_plugin.stores.rows import Rows


def load(book: RowStore, project: str, rows: Rows) -> None:
    """Put rows in place of those with the same keys, in one step of the book."""
    usage = {}
    for key, total in rows.usage:
        # A book adds to totals; what has to be added is what they lack.
        recorded = book.usage(project, key) or Usage()
        usage[key] = Usage(*(wanted - there for wanted, there in zip(total, recorded)))
    accounts = {account.ref: account.copy() for account in rows.accounts}
    book.write(project, Changes({**accounts}, {hold.id: hold.copy() for hold in rows.holds}, usage))
