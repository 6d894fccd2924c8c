"""The rows that a target held before a copy. They tell which rows the source has too, and which go beyond the source's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, final

from litellm_budget_plugin.core.accounts import Account, Hold
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.totals import Named, Row

_STATES = {"open": 0, "settled": 2}
"""The order of a hold's states: open, then any other, then settled."""


@final
class TargetIndex:
    """Rows by their keys, in a temporary SQLite file that is deleted at the end, because a ledger may not fit into memory."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._run = self._connection.execute
        self._run("PRAGMA journal_mode = OFF")
        self._run(
            "CREATE TABLE rows (key BLOB PRIMARY KEY, digest BLOB, about TEXT, seen INTEGER DEFAULT 0) WITHOUT ROWID"
        )
        self.noted = 0
        self.left = 0

    def __enter__(self) -> TargetIndex:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.Error):
            raise BudgetStoreError(
                f"the rows to compare do not fit into the directory for temporary files ({error}); make room there, or set "
                "TMPDIR or SQLITE_TMPDIR"
            ) from error

    def note(self, rows: Iterable[Named]) -> None:
        """Remember rows of the target."""
        for row in rows:
            about = json.dumps(_about(row.row))
            added = self._run("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, 0)", (row.key, row.digest, about)).rowcount
            self.noted += added
            self.left += added

    def has(self, row: Named) -> bool:
        """Whether the target held exactly this row."""
        return self.noted > 0 and self._found(row)[0] == row.digest

    def compare(self, row: Named) -> tuple[bool, str | None]:
        """Whether the target's row differs from this row of the source, and, if the target's goes beyond it, a text that says how."""
        digest, about, seen = self._found(row)
        if digest is None:
            return False, None
        if not seen:
            self._run("UPDATE rows SET seen = 1 WHERE key = ?", (row.key,))
            self.left -= 1
        if digest == row.digest:
            return False, None
        return True, _more(json.loads(about), _about(row.row))

    def example(self) -> str:
        """One of the rows that have not been compared, in words."""
        ((about,),) = self._run("SELECT about FROM rows WHERE NOT seen LIMIT 1").fetchall()
        kind, name, _ = json.loads(about)
        return f"{kind} {name}"

    def _found(self, row: Named) -> tuple[bytes | None, str, int]:
        found: tuple[bytes, str, int] | None = self._run(
            "SELECT digest, about, seen FROM rows WHERE key = ?", (row.key,)
        ).fetchone()
        return found or (None, "", 0)


def _about(row: Row) -> list[Any]:
    """The kind of a row, its name, and the part of its content that only grows."""
    if isinstance(row, Account):
        return ["account", list(row.ref), None]
    if isinstance(row, Hold):
        return ["hold or mark", row.id, row.state]
    key, usage = row
    return ["total", list(key), list(usage)[:-1]]


def _more(target: list[Any], source: list[Any]) -> str | None:
    """Say how the target's row goes beyond the source's: something was settled or counted only there. An account's
    spend shows nothing, because windows roll; each charge to it left a mark and counts in the totals.
    """
    kind, name, there = target
    here = source[2]
    if kind == "hold or mark" and _STATES.get(there, 1) > _STATES.get(here, 1):
        return f"{kind} {name!r} is {there} in the target and {here} in the source"
    if kind == "total" and any(more > less for more, less in zip(there, here)):
        return f"{kind} {name} counts {there} in the target and {here} in the source"
    return None
