"""A stress test: eight processes of sixteen threads each, on every engine that is reached over a network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from litellm_budget_plugin.core.commands import Accounts, Read, ReadUsage, UsageRows
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.crowd import DEFAULTS, LIMITS
from tests.stores.engines import ENGINES, LOCAL
from tests.stores.postgres.server import shared

ROOT = Path(__file__).parents[2]
PROCESSES, CALLS = 8, 190


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - set(LOCAL)))
def test_a_crowd(engine: str, tmp_path: Path, opened: Callable[..., Store]) -> None:
    """Nothing exceeds its limit, held returns to zero, and spent is exactly the sum of the acknowledged charges."""
    url = ENGINES[engine](tmp_path)
    command = [sys.executable, "-m", "tests.stores.crowd", url]
    crowd = [
        subprocess.Popen([*command, str(CALLS), str(seed)], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        for seed in range(PROCESSES)
    ]
    said = [json.loads(process.communicate()[0]) for process in crowd]
    assert not any(process.returncode for process in crowd)
    charged = sum((Counter(each["charged"]) for each in said), Counter[str]())
    calls = sum(each["calls"] for each in said)
    refused = sum(each["refused"] for each in said)
    assert calls >= PROCESSES * CALLS and refused > 100, (calls, refused)

    store = opened(url)
    found = {}
    for scope, limit in LIMITS.items():
        accounts, usage = store.execute(Read("p", scope, defaults=DEFAULTS)), store.execute(ReadUsage("p", scope))
        assert isinstance(accounts, Accounts) and isinstance(usage, UsageRows)
        assert all(account.held == 0 and account.spent <= limit for account in accounts.accounts)
        found[scope] = {account.ref.subject: account.spent for account in accounts.accounts}
        assert sum(row.spent for _, row in usage.rows) == sum(charged.values())
        assert sum(row.calls for _, row in usage.rows) == calls
    assert found == {"user": dict(charged), "project": {"p": sum(charged.values())}}
    if engine == "postgres":
        assert _deadlocks() == 0


def _deadlocks() -> int:
    with psycopg.connect(f"postgresql://postgres@/postgres?host={shared().folder}") as connection:
        row = connection.execute("SELECT sum(deadlocks) FROM pg_stat_database").fetchone()
    assert row is not None
    return int(row[0])
