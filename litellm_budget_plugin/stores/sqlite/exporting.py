"""Raw rows of the ledger, page by page, in the order of their keys."""

from __future__ import annotations

import json

from litellm_budget_plugin.core.accounts import Ref, UsageKey
from litellm_budget_plugin.stores.rows import Page, Rows
from litellm_budget_plugin.stores.sqlite.book import SqliteBook

# No key comes before these.
_FIRST_REF, _FIRST_USAGE = Ref("", "", "", "", ""), UsageKey("", "", 0, "")


def export(book: SqliteBook, project: str, after: str, most: int) -> Page:
    """Up to `most` accounts, then holds, then totals. `after` is JSON: the table, and the key that its next row has at
    least.
    """
    table, key = json.loads(after) if after else ("accounts", _FIRST_REF)
    if table == "accounts":
        accounts = book.accounts_from(project, Ref(*key), most)
        last = accounts[-1].ref if len(accounts) == most else None
        return Page(Rows(accounts=tuple(accounts)), _next(table, last) or _next("holds", ("",), begin=True))
    if table == "holds":
        holds = book.holds_from(project, key[0], most)
        ended = _next("usage", _FIRST_USAGE, begin=True)
        return Page(Rows(holds=tuple(holds)), _next(table, (holds[-1].id,) if len(holds) == most else None) or ended)
    usage = book.usage_from(project, UsageKey(*key), most)
    return Page(Rows(usage=tuple(usage)), _next(table, usage[-1][0] if len(usage) == most else None))


def _next(table: str, last: tuple[str | int, ...] | None, *, begin: bool = False) -> str | None:
    if last is None:
        return None
    # Every key ends with text, and the text that follows another one immediately is that with a NUL behind it.
    return json.dumps([table, last if begin else [*last[:-1], f"{last[-1]}\0"]])
