"""A quick way to put many users into one file: copy the rows of one user. It works with any columns of the schema."""

from __future__ import annotations

import sqlite3

_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"


def user_name(number: int) -> str:
    """Return the id of a copied user; the first number is 1."""
    return f"user-{number:07}"


def fill(path: str, template: str, users: int) -> None:
    """Create `users` users with copies of every row that `template` has in accounts and usage, and of every mark in the file. No other
    connection may have the file open.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        for table in ("accounts", "usage"):
            _copy(connection, table, "subject", "'user-' || printf('%07d', n)", users, template)
        _copy(connection, "holds", "id", "id || '-' || printf('%07d', n)", users, None)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


def _copy(connection: sqlite3.Connection, table: str, column: str, new: str, users: int, only: str | None) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    # The rows are written in the order of their key, so that pages are filled one after the other.
    chosen = ", ".join(new if name == column else f"{table}.{name}" for name in columns)
    where = f"WHERE {table}.{column} = ?" if only is not None else ""
    given = (users,) if only is None else (users, only)
    connection.execute(f"INSERT INTO {table} {_NUMBERS} SELECT {chosen} FROM {table}, numbers {where}", given)
