"""`kill -9` at any moment: no acknowledged charge is lost, none counts twice, every hold is returned."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from litellm_budget_plugin.core.commands import Accounts, Read, ReadUsage, Settled, Sweep, Swept, UsageRows
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.worker import charged

ROOT = Path(__file__).parents[2]
WORKERS, KILLS, SEED = 10, 200, 20260


def names(directory: Path, kind: str) -> set[str]:
    """The ids in all workers' files of one kind; an incomplete last line is ignored."""
    whole = (path.read_text().rpartition("\n")[0].splitlines() for path in directory.glob(f"*.{kind}"))
    return {name for lines in whole for name in lines}


def reading(database: Path, query: str) -> list[tuple[object, ...]]:
    """The rows of a query, made without the store."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def totals(store: Store, now: int) -> tuple[int, int, int, int]:
    """The user's spent and held, and the spend and calls in its totals."""
    accounts, usage = store.execute(Read("p", "user", now=now)), store.execute(ReadUsage("p", "user", now=now))
    assert isinstance(accounts, Accounts) and isinstance(usage, UsageRows)
    (account,) = accounts.accounts
    rows = [row for _, row in usage.rows]
    return account.spent, account.held, sum(row.spent for row in rows), sum(row.calls for row in rows)


def test_two_hundred_kills_among_ten_processes(database: Path, tmp_path: Path, opened: Callable[..., Store]) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    numbers = [str(number) for number in (WORKERS, KILLS, SEED)]
    command = [sys.executable, "-m", "tests.stores.worker", "kill", str(database), str(notes), *numbers]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)

    attempted, acknowledged = names(notes, "attempted"), names(notes, "acknowledged")
    assert len(acknowledged) > KILLS
    settled = {row[0] for row in reading(database, "SELECT id FROM holds WHERE state = 'settled'")}
    assert acknowledged <= settled <= attempted

    store = opened(f"sqlite:///{database}", test_clock=True)
    (latest,) = reading(database, "SELECT max(at) FROM holds WHERE state <> 'open'")[0]
    still_open = len(reading(database, "SELECT id FROM holds WHERE state = 'open'"))
    assert isinstance(latest, int)
    spent = 7 * len(settled)
    assert totals(store, latest) == (spent, 100 * still_open, spent, len(settled))

    for name in sorted(acknowledged):
        assert store.execute(charged(name)) == Settled(name)
    assert totals(store, latest) == (spent, 100 * still_open, spent, len(settled))

    ((later,),) = reading(database, "SELECT max(at) FROM holds")
    assert isinstance(later, int)
    assert store.execute(Sweep("p", 30 * DAY, 400 * DAY, now=later)) == Swept(still_open, 0, 0)
    assert totals(store, later) == (spent, 0, spent, len(settled))
    assert reading(database, "PRAGMA integrity_check") == [("ok",)]
