"""Eight processes of sixteen threads each, for half a minute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from litellm_budget_plugin.core.commands import Accounts, Read, ReadUsage, UsageRows
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.crowd import DEFAULTS, LIMITS
from tests.stores.postgres.conftest import Look

ROOT = Path(__file__).parents[3]
PROCESSES, SECONDS = 8, 30


def test_a_crowd(url: str, opened: Callable[..., Store], look: Look) -> None:
    """Nothing over its limit, held returns to zero, and spent is the sum of the acknowledged charges to the nano-dollar."""
    command = [sys.executable, "-m", "tests.stores.crowd", url]
    crowd = [
        subprocess.Popen([*command, str(SECONDS), str(seed)], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        for seed in range(PROCESSES)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS + 120)[0] for process in crowd]
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    assert not any(process.returncode for process in crowd)
    said = [json.loads(output) for output in outputs]
    charged = sum((Counter(each["charged"]) for each in said), Counter[str]())
    calls = sum(each["calls"] for each in said)
    refused = sum(each["refused"] for each in said)
    assert calls > 1000 and refused > 100, (calls, refused)

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
    assert look(url, "SELECT sum(deadlocks) FROM pg_stat_database") == [(0,)]
