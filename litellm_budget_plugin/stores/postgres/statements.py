"""The statements that read and write rows; see changing.sql for their locks."""

# ruff: noqa: S608  # names of our own tables and columns, and places of values

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from litellm_budget_plugin.core.accounts import Subject, Usage
from litellm_budget_plugin.stores.postgres.line import Statement
from litellm_budget_plugin.stores.postgres.migrating import in_schema
from litellm_budget_plugin.stores.postgres.rows import COLUMNS, KEYS, owner_of, stored_id
from litellm_budget_plugin.stores.sql import named_queries

_LONGEST_LOCK = 10.0
"""The time (seconds) after which a silent client loses the locks of its transaction."""


class Statements:
    """The statements for the ledger in one schema. `texts` has their SQL by their names."""

    def __init__(self, schema: str) -> None:
        texts = _tables()
        for file in ("adding.sql", "changing.sql", "reading.sql"):
            texts.update(named_queries(__package__, file))
        self.texts = {name: in_schema(sql, schema) for name, sql in texts.items()}

    def of(self, name: str, *values: str | int | None) -> Statement:
        """The statement with this name."""
        return self.texts[name], [str(value) if isinstance(value, int) else value for value in values]

    def lock(self, name: str, project: str, deadline: float) -> Statement:
        """The lock of a project, "alone" or "beside" others. The server waits for it until shortly before `deadline`:
        if the server refuses, the connection stays usable; if the client gave up, it would have to close it.
        """
        seconds = min(0.9 * (deadline - time.monotonic()), _LONGEST_LOCK)
        return self.texts[name], (project, str(max(1, int(seconds * 1000))))

    def view(self, project: str, subjects: Iterable[Subject], holds: Sequence[str], now: int | None) -> Statement:
        """The statement that reads the parts of a View."""
        owners = ",".join(owner_of(*subject) for subject in subjects)
        keys = to_json([stored_id(hold) for hold in holds]).decode()
        return self.of("view", project, now, f"{{{owners}}}", keys)

    def on_rows(self, project: str, rows: Mapping[str, Sequence[Any]]) -> list[Statement]:
        """The statements with these names, for those that have rows."""
        return [self.of(name, project, to_json(some).decode()) for name, some in rows.items() if some]


def _tables() -> dict[str, str]:
    """The statements of each table: one puts rows in place of those with the same keys, one reads the first page, and
    one reads the page after a key.
    """
    texts = {}
    for table, columns in COLUMNS.items():
        texts[table] = _upsert(table, {column: f"excluded.{column}" for column in columns})
        keys = ", ".join(KEYS[table])
        after = ", ".join(f"${place}" for place in range(3, 3 + len(KEYS[table])))
        for name, rows in ((f"begin {table}", ""), (f"export {table}", f"AND ({keys}) > ({after})")):
            texts[name] = (
                f"SELECT json_agg(to_json(r)) FROM (SELECT * FROM ledger.{table} WHERE project = $1 {rows} "
                f"ORDER BY {keys} LIMIT $2::bigint) r"
            )
    texts["add_to_totals"] = _upsert("usage", {column: f"old.{column} + excluded.{column}" for column in Usage._fields})
    return texts


def _upsert(table: str, changes: Mapping[str, str]) -> str:
    """A statement that inserts rows of a project ($1), JSON objects ($2), and changes those whose keys exist."""
    columns, keys = ", ".join(COLUMNS[table]), ", ".join(KEYS[table])
    changed = ", ".join(f"{column} = {value}" for column, value in changes.items() if column not in KEYS[table])
    return (
        f"INSERT INTO ledger.{table} AS old (project, {columns}) SELECT $1, {columns} "
        f"FROM jsonb_populate_recordset(NULL::ledger.{table}, $2::jsonb) ON CONFLICT (project, {keys}) DO UPDATE SET {changed}"
    )
