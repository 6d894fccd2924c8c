"""Creating and upgrading the schema: all steps or none, only once, and by any role with the rights."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litellm_budget_plugin.core.commands import Settled
from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.postgres.address import address_from
from litellm_budget_plugin.stores.postgres.line import ServerError, connect
from litellm_budget_plugin.stores.postgres.migrating import STEPS, Step, bring_up_to_date
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.server import Server, shared

ROOT = Path(__file__).parents[3]
Opener = Callable[..., Store]
Starter = Callable[..., Server]

NEXT = Step(
    "CREATE TABLE ledger.notes (text text);ALTER TABLE ledger.usage ADD COLUMN searches bigint NOT NULL DEFAULT 0;",
    1,
)
BROKEN = Step("CREATE TABLE ledger.more (text text); INSERT INTO ledger.missing VALUES (1);", 1)
LOCKING_OUT = Step("CREATE TABLE ledger.others (text text);", 4)


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


def migrate(url: str, *steps: Step) -> None:
    """Upgrade a schema to the steps that a package knows."""
    address, deadline = address_from(url), time.monotonic() + 30.0
    line = connect(address.attempts, address.prepare, deadline)
    try:
        bring_up_to_date(line, address.name, address.schema, deadline, steps)
    finally:
        line.hang_up()


CATALOG = """
SELECT 'column', table_name || '.' || column_name || ' ' || ordinal_position || ' ' || data_type || ' ' || is_nullable
    || coalesce(column_default, '') || coalesce(collation_name, '')
FROM information_schema.columns WHERE table_schema = %(schema)s
UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = %(schema)s
UNION ALL SELECT 'function', pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
UNION ALL SELECT 'storage', relname || reloptions::text FROM pg_class WHERE relnamespace = %(schema)s::regnamespace
ORDER BY 1, 2
"""


def catalog(look: Look, url: str) -> list[tuple[str, str]]:
    """Everything that a schema consists of, without its name."""
    schema = schema_of(url)
    rows = look(url, CATALOG.replace("%(schema)s", f"'{schema}'"))
    return [(kind, text.replace(schema, "ledger")) for kind, text in rows if text is not None]


def test_step_by_step_or_afresh_is_the_same(look: Look) -> None:
    """One schema belongs to a user of the first version who upgrades, the other to a new user."""
    upgraded, fresh = shared().url(), shared().url()
    for newest in range(1, len(STEPS) + 1):
        migrate(upgraded, *STEPS[:newest])
    migrate(upgraded, *STEPS, NEXT)
    migrate(fresh, *STEPS, NEXT)
    assert catalog(look, upgraded) == catalog(look, fresh)
    kinds = {kind for kind, _ in catalog(look, fresh)}
    assert kinds == {"column", "index", "storage"}


def test_a_step_is_applied_in_place(url: str, look: Look, opened: Opener) -> None:
    """The ledger's content stays, and the previous version works beside the new one."""
    old = opened(url)
    old.execute(charge_of("h"))
    migrate(url, *STEPS, NEXT)
    old.execute(charge_of("other"))
    assert calls_of(opened(url)) == 2
    assert look(url, f"SELECT searches FROM {schema_of(url)}.usage") == [(0,)]
    assert look(url, f"SELECT newest, oldest FROM {schema_of(url)}.version") == [(len(STEPS) + 1, 2)]


def test_a_failing_step_changes_nothing(url: str, look: Look, opened: Opener) -> None:
    store = opened(url)
    store.execute(charge_of("h"))
    before = catalog(look, url)
    with pytest.raises(ServerError, match="missing"):
        migrate(url, *STEPS, NEXT, BROKEN)
    assert catalog(look, url) == before
    store.execute(charge_of("other"))
    assert look(url, f"SELECT newest FROM {schema_of(url)}.version") == [(len(STEPS),)]


def test_a_later_version_that_cannot_be_used(url: str) -> None:
    """The schema itself says so; without that, it can be used."""
    migrate(url, *STEPS, NEXT)
    open_store(url).close()
    migrate(url, *STEPS, NEXT, LOCKING_OUT)
    with pytest.raises(BudgetStoreError, match="needs schema version 4, this one knows 2.*upgrade"):
        open_store(url)


def test_eight_processes_that_create_it_at_once(url: str, opened: Opener) -> None:
    """Each process tries to, and one does. Then they race for 33 holds."""
    command = [sys.executable, "-m", "tests.stores.worker", "race", url, "12"]
    workers = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    granted = sum(int(worker.communicate()[0]) for worker in workers)
    assert not any(worker.returncode for worker in workers)
    assert granted == 33
    assert account_of(opened(url)).held == 990


def test_a_schema_that_another_role_has_prepared(url: str, look: Look, opened: Opener) -> None:
    """The rights in docs/postgresql.md suffice, and without them the error names that page."""
    schema = schema_of(url)
    role = f"app_{schema}"
    look(url, f"CREATE ROLE {role} LOGIN")
    mine = url.replace("postgres@", f"{role}@")
    look(url, "REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
    with pytest.raises(BudgetStoreError, match=r"lacks a right.*docs/postgresql\.md"):
        opened(mine)
    opened(url).close()
    with pytest.raises(BudgetStoreError, match=r"lacks a right.*docs/postgresql\.md"):
        opened(mine)
    look(url, f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    look(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    store = opened(mine)
    store.execute(hold_of("h"))
    assert store.execute(charge_of("h")) == Settled("h")


def test_who_is_not_let_in(own_server: Starter) -> None:
    """This failure is not temporary."""
    server = own_server("fsync=off")
    rules = server.folder / "data" / "pg_hba.conf"
    rules.write_text("local all secretive scram-sha-256\nlocal all stranger reject\nlocal all all trust\n")
    server.stop()
    server.start()
    url = server.url()
    with pytest.raises(BudgetStoreError, match="a password is needed") as raised:
        open_store(url.replace("postgres@", "secretive@"))
    assert raised.type is BudgetStoreError
    for user, says in (
        ("secretive:wrong", "password is wrong"),
        ("stranger", r"pg_hba\.conf"),
        ("nobody", "create the"),
    ):
        with pytest.raises(BudgetStoreError, match=says) as raised:
            open_store(url.replace("postgres@", f"{user}@"))
        assert raised.type is BudgetStoreError
        assert "wrong@" not in str(raised.value)
    with pytest.raises(BudgetStoreError, match="create the database") as raised:
        open_store(url.replace("/postgres?", "/missing?"))
    assert raised.type is BudgetStoreError


def test_a_database_in_another_encoding(look: Look, url: str) -> None:
    look(url, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(BudgetStoreError, match="LATIN1.*UTF8"):
        open_store(url.replace("/postgres?", "/latin?"))


def test_an_older_server(own_server: Starter, opened: Opener) -> None:
    """The statements also work on the oldest server available here."""
    store = opened(own_server("fsync=off", version="16").url())
    store.execute(hold_of("h"))
    assert store.execute(charge_of("h")) == Settled("h")
    assert (account_of(store).spent, account_of(store).held) == (10, 0)
