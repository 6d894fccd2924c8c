"""A file of version 0.1.0 (written by sqlite_version_1.py) is a ledger of this version, with every field."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Granted, Read, Reserve, Settle, Settled, Sweep, Swept
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.stores.protocol import Store, ask
from tests.stores.redis.test_copying import exported

EARLIER: dict[str, Any] = json.loads(gzip.decompress(Path(__file__).with_name("sqlite_version_1.json.gz").read_bytes()))
LATER = 1_774_734_000 * SECOND + 2 * DAY


@pytest.fixture
def earlier(database: Path, opened: Callable[..., Store]) -> Store:
    connection = sqlite3.connect(database)
    connection.executescript(EARLIER["sql"])
    connection.execute(f"PRAGMA user_version = {EARLIER['version']}")
    connection.execute(f"PRAGMA application_id = {EARLIER['application']}")
    connection.close()
    return opened(f"sqlite:///{database}", test_clock=True)


@pytest.mark.parametrize("project", EARLIER["rows"])
def test_every_row_is_read_as_it_was(earlier: Store, project: str) -> None:
    then, rows = EARLIER["rows"][project], exported(earlier, project, 50)
    holds = [{**hold, "reply": hold["reply"] and json.loads(hold["reply"])} for hold in then["holds"]]
    # Money of holds inside holds, which was never used.
    recorded = [{key: value for key, value in hold.items() if key not in ("parent", "lent")} for hold in holds]
    present = [{**asdict(hold), "reply": hold.reply and json.loads(hold.reply)} for hold in rows.holds]
    assert json.loads(json.dumps(present)) == sorted(recorded, key=lambda hold: hold["id"])
    accounts = json.loads(json.dumps([asdict(account) for account in rows.accounts]))
    assert accounts == sorted(then["accounts"], key=lambda account: account["ref"])
    assert json.loads(json.dumps(rows.usage)) == sorted(then["usage"])


def test_it_goes_on(earlier: Store) -> None:
    """A hold of the earlier version is settled, due holds expire, and new calls are granted."""
    earlier.execute(Read("app", "user", now=LATER))
    settle = Settle("last", "app", (Subject("user", "new"),), (), 3, "m", now=LATER)
    assert [ask(earlier, settle) for _ in range(2)] == [Settled("last")] * 2
    reserve = Reserve("next", "app", (Subject("user", "new"),), (), Amounts(7), SECOND, now=LATER)
    assert ask(earlier, reserve) == Granted("next", Amounts(7))
    swept = ask(earlier, Sweep("app", DAY, DAY, now=LATER + DAY))
    assert isinstance(swept, Swept) and swept.forgotten > 0
    assert ask(earlier, replace(settle, hold="other", now=LATER + DAY)) == Settled("other")
