"""A ledger of version 0.1.0 is upgraded in place, and loses nothing."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, AlreadyCharged, Read, Settle, Settled, Sweep
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.postgres.address import address_from
from litellm_budget_plugin.stores.postgres.line import connect
from litellm_budget_plugin.stores.postgres.migrating import STEPS, bring_up_to_date, in_schema
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.server import shared
from tests.stores.postgres.written_by_0_1_0 import ALICE, BOB, DEFAULTS, LONG, MINUTE, START, everything

Opener = Callable[..., Store]

WRITTEN = json.loads(gzip.decompress((Path(__file__).parent / "version_1.json.gz").read_bytes()))
NOW = START + MINUTE


@pytest.fixture
def old_url(url: str) -> str:
    """A ledger as 0.1.0 left it."""
    schema = url.partition("schema=")[2]
    with psycopg.connect(url.partition("?")[0] + f"?host={shared().folder}", autocommit=True) as connection:
        connection.execute(WRITTEN["sql"].replace("litellm_budget", schema).encode())
    return url


def as_written(project: str) -> list[Any]:
    """The rows of 0.1.0, without the fields of holds inside holds."""
    rows = json.loads(json.dumps(WRITTEN["rows"][project]))
    for row in rows:
        if isinstance(row, dict) and "state" in row:
            if row.pop("parent"):
                row["amounts"] = [0, 0, 0]
            del row["lent"]
    return rows  # type: ignore[no-any-return]


def counted(rows: list[Any]) -> Counter[str]:
    """Rows in any order."""
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


def settle(hold: str, *subjects: Subject, **more: Any) -> Settle:
    return Settle(hold, "p", subjects or (ALICE,), ("gpt-4o",), 9, "gpt-4o-x", defaults=DEFAULTS, now=NOW, **more)


def spent(store: Store, subject: Subject, now: int = NOW) -> tuple[int, int]:
    """The spent and held amounts of a subject's first account."""
    reply = store.execute(Read("p", *subject, defaults=DEFAULTS, now=now))
    assert isinstance(reply, Accounts)
    return reply.accounts[0].spent, reply.accounts[0].held


def test_every_row_is_kept(old_url: str, opened: Opener, look: Look) -> None:
    store = opened(old_url, test_clock=True)
    assert store.projects() == sorted(WRITTEN["rows"])
    for project in WRITTEN["rows"]:
        assert counted(everything(store, project)) == counted(as_written(project))
    schema = old_url.partition("schema=")[2]
    assert look(old_url, f"SELECT proname FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace") == []
    # Its tables equal those of a new schema.
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = '{}'"
    fresh = shared().url()
    opened(fresh)
    new = look(fresh, columns.format(fresh.partition("schema=")[2]))
    assert Counter(look(old_url, columns.format(schema))) == Counter(new)


def test_the_ledger_goes_on(old_url: str, opened: Opener) -> None:
    """Marks are known, holds are settled, and expired holds are charged their floor, also with long ids."""
    store = opened(old_url, test_clock=True)
    assert spent(store, ALICE) == (318, 120)
    assert store.execute(settle("closed")) == Settled("closed")
    # Its stored reply contains the thresholds that it had crossed.
    assert store.execute(settle("crossing")) == Settled("crossing")
    assert store.execute(settle("again", unless="\U0001f600" * 900)) == AlreadyCharged("again")
    assert spent(store, ALICE) == (318, 120)
    assert store.execute(settle("l" * 900)) == Settled("l" * 900)
    assert store.execute(settle("open")) == Settled("open")
    assert spent(store, ALICE) == (336, 100)
    assert store.execute(settle("expires")) == Settled("expires")
    assert spent(store, ALICE) == (342, 100)
    assert store.execute(settle("long", LONG)) == Settled("long")
    assert spent(store, LONG) == (9, 0)
    store.execute(Sweep("p", 10**15, 10**15, now=NOW + MINUTE))
    assert spent(store, ALICE, NOW + MINUTE) == (348, 0)
    # Its limit was dropped while money was held: the account is deleted with the last hold.
    reply = store.execute(Read("p", *BOB, defaults=DEFAULTS, now=NOW + MINUTE))
    assert isinstance(reply, Accounts) and [state.held for state in reply.accounts] == [0] * len(reply.accounts)


def test_many_at_once(old_url: str) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            open_store(old_url, timeout=30.0).close()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=upgrade) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_process_of_the_old_version(old_url: str, opened: Opener, look: Look) -> None:
    """One that starts is told to upgrade, and the commands of one that runs fail, because they call functions."""
    opened(old_url)
    address, deadline = address_from(old_url), time.monotonic() + 30.0
    line = connect(address.attempts, address.prepare, deadline)
    with pytest.raises(BudgetStoreError, match="needs schema version 2, this one knows 1.*upgrade"):
        bring_up_to_date(line, address.name, address.schema, deadline, STEPS[:1])
    line.hang_up()
    for function in ("reserve_v1", "settle_v1", "release_v1", "put_budget_v1", "read_v1", "durable_v1"):
        with pytest.raises(psycopg.errors.UndefinedFunction):
            look(old_url, f"SELECT {address.schema}.{function}()")


@pytest.mark.parametrize("function", sorted(WRITTEN["messages"]))
def test_a_command_of_the_old_version_that_waits_for_the_upgrade(function: str, old_url: str, look: Look) -> None:
    """It fails as well: it does not maintain versions, so others would not notice its changes."""
    schema = old_url.partition("schema=")[2]
    failures: list[BaseException] = []

    def command() -> None:
        try:
            look(old_url, f"SELECT {schema}.{function}(%s)", WRITTEN["messages"][function])
        except BaseException as failure:
            failures.append(failure)

    with psycopg.connect(old_url.partition("?")[0] + f"?host={shared().folder}") as upgrading:
        upgrading.execute(in_schema(STEPS[1].sql, schema).encode())
        before = upgrading.execute(f"SELECT * FROM {schema}.accounts ORDER BY id").fetchall()
        old = threading.Thread(target=command)
        old.start()
        waiting = (
            f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%{schema}.{function}%' AND wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + 30.0
        while not look(old_url, waiting):
            assert time.monotonic() < deadline and not failures
            time.sleep(0.01)
    old.join()
    [failure] = failures
    # Its next function is missing, or its variable `owner` is now ambiguous with a column.
    assert isinstance(failure, (psycopg.errors.UndefinedFunction, psycopg.errors.AmbiguousColumn))
    assert look(old_url, f"SELECT * FROM {schema}.accounts ORDER BY id") == before
    assert look(old_url, f"SELECT * FROM {schema}.holds WHERE id LIKE '%new'") == []


def test_a_table_that_is_busy_for_long(old_url: str, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup may keep it busy. The upgrade gives up without changes, and can be tried again."""
    monkeypatch.setattr("litellm_budget_plugin.stores.postgres.migrating._LOCK_SECONDS", 0.05)
    schema = old_url.partition("schema=")[2]
    with psycopg.connect(old_url.partition("?")[0] + f"?host={shared().folder}") as backup:
        backup.execute(f"SELECT count(*) FROM {schema}.usage")
        with pytest.raises(BudgetStoreError, match="a lock of the ledger"):
            open_store(old_url)
    assert look(old_url, f"SELECT newest FROM {schema}.version") == [(1,)]
    open_store(old_url).close()
