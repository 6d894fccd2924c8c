"""The row changes of a Reserve and a Settle in bare sqlite3: the least that a ledger in SQLite costs."""

from __future__ import annotations

import sqlite3
import time

from benchmarks.traffic import COST, DEFAULTS, MODEL, PROJECT, TTL, WANT
from litellm_budget_plugin.stores.sqlite.connecting import connect

_HOLD = (
    '[null,"openai/gpt-4o",0,41000000,1,5000,0,0,0,1000000,1,100,[["user","{0}"]],[["user","{0}","","none","usd"]],[]]'
)
"""A text of the same length as the detail of an open hold in the store."""
_LIMIT = DEFAULTS[0].limit


class BareLedger:
    """A file that the store created, changed by hand: same tables, same settings, same transactions, no rules.

    Each user's account must exist. With `busy_timeout` (seconds), SQLite itself waits for the lock.
    """

    def __init__(self, path: str, busy_timeout: float = 0.0) -> None:
        self.connection: sqlite3.Connection = connect(path, time.monotonic() + 30)
        self.connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")

    def reserve(self, hold: str, user: str) -> None:
        """Hold WANT; fail if the limit does not allow it."""
        run, now = self.connection.execute, time.time_ns() // 1000
        run("BEGIN IMMEDIATE")
        changed = run(
            "UPDATE accounts SET held = held + ? WHERE project = ? AND scope = 'user' AND subject = ? AND model = '' AND "
            "period = 'none' AND unit = 'usd' AND spent + held + ? <= ?",
            (WANT, PROJECT, user, WANT, _LIMIT),
        )
        assert changed.rowcount == 1
        run("INSERT INTO holds VALUES (?, ?, 'open', ?, ?, NULL)", (PROJECT, hold, now + TTL, _HOLD.format(user)))
        run("COMMIT")

    def settle(self, hold: str, user: str) -> None:
        """Charge COST, close the hold, write the response's mark and add to the day's totals."""
        run, now = self.connection.execute, time.time_ns() // 1000
        run("BEGIN IMMEDIATE")
        run(
            "UPDATE accounts SET held = held - ?, spent = spent + ?, models = ? WHERE project = ? AND scope = 'user' AND "
            "subject = ? AND model = '' AND period = 'none' AND unit = 'usd'",
            (WANT, COST, '{"gpt-4o":12500000}', PROJECT, user),
        )
        mark = f"alias:response:{hold}:{user}"
        run("INSERT INTO holds VALUES (?, ?, 'alias', ?, NULL, NULL)", (PROJECT, mark, now))
        changed = run(
            "UPDATE holds SET state = 'settled', at = ?, detail = NULL WHERE project = ? AND id = ?",
            (now, PROJECT, hold),
        )
        assert changed.rowcount == 1
        run(
            "INSERT INTO usage VALUES (?, 'user', ?, ?, ?, ?, 1, 1000, 1000, 0, 0) ON CONFLICT DO UPDATE SET "
            "spent = spent + excluded.spent, calls = calls + 1, input_tokens = input_tokens + excluded.input_tokens, "
            "output_tokens = output_tokens + excluded.output_tokens",
            (PROJECT, user, now // 86_400_000_000, MODEL, COST),
        )
        run("COMMIT")

    def shorten_log(self) -> None:
        """Checkpoint the log, as the store's own `sync` does from time to time."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
