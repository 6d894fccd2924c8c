"""The creation and the upgrade of the ledger's schema, once, by the first process that opens it.

A step upgrades a schema from version n to n + 1. A step that is incompatible with older packages says so: the table
`version` names the newest step, and the oldest version that a package must know.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from litellm_budget_plugin.errors import BudgetStoreError
from litellm_budget_plugin.stores.postgres.line import Line, ServerError
from litellm_budget_plugin.stores.sql import script

_log = logging.getLogger("litellm_budget_plugin")

_OLDEST_SERVER = 14


class Step(NamedTuple):
    """SQL that upgrades a schema by one version, and the version that a package must know to use it then."""

    sql: str
    oldest: int


STEPS = (
    Step(script(__package__, "version_1.sql"), 1),
    # Packages that know only version 1 call functions that version 2 drops.
    Step(script(__package__, "version_2.sql"), 2),
)
"""The steps in their order. Steps are added at the end and never changed."""

_UPGRADE_SECONDS = 600.0
"""The time (seconds) that an upgrade may take. Rows are rewritten, which takes about a second for 100,000."""
_LOCK_SECONDS = 10.0
"""The time (seconds) that an upgrade waits for the tables."""

_VERSION = (
    "CREATE TABLE IF NOT EXISTS ledger.version "
    "(one boolean PRIMARY KEY DEFAULT true CHECK (one), newest integer NOT NULL, oldest integer NOT NULL)"
)
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = 'ledger'"
_HAS_VERSION = (
    "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'ledger' AND c.relname = 'version'"
)
_PUT_VERSION = (
    "INSERT INTO ledger.version (newest, oldest) VALUES ({newest}, {oldest}) "
    "ON CONFLICT (one) DO UPDATE SET newest = excluded.newest, oldest = excluded.oldest"
)


def in_schema(sql: str, schema: str) -> str:
    """SQL of our files, with `ledger.` replaced by the schema's own name."""
    return re.sub(r"\bledger\.", f"{schema}.", sql)


def bring_up_to_date(line: Line, name: str, schema: str, deadline: float, steps: Sequence[Step] = STEPS) -> None:
    """Create the schema, or apply the steps that it lacks, all in one transaction.

    Raises BudgetStoreError, naming the ledger by `name`, if this package cannot use it; ServerError and the errors of a line unchanged.
    """
    _check_server(line, name, deadline)
    version = _version(line, name, schema, deadline, len(steps))
    if version >= len(steps):
        return
    if version:
        deadline = max(deadline, time.monotonic() + _UPGRADE_SECONDS)
        _log.info("%s: upgrading the schema from version %d to %d", name, version, len(steps))
    try:
        line.run("BEGIN ISOLATION LEVEL READ COMMITTED", deadline)
        line.run(f"SELECT pg_advisory_xact_lock(hashtextextended('litellm_budget_schema {schema}', 0))", deadline)
        # A backup may keep a table busy for long, and every other client would wait behind this statement.
        line.run(f"SET LOCAL lock_timeout = {_LOCK_SECONDS * 1000:.0f}", deadline)
        # Read again under the lock: another process may have upgraded meanwhile.
        version = _version(line, name, schema, deadline, len(steps))
        if version < len(steps):
            if not version:
                # IF NOT EXISTS would need the right to create schemas even if the schema exists.
                if line.run(_HAS_SCHEMA.replace("ledger", schema), deadline) is None:
                    line.run(f"CREATE SCHEMA {schema}", deadline)
                line.run(in_schema(_VERSION, schema), deadline)
            for step in steps[version:]:
                line.run(in_schema(step.sql, schema), deadline)
            oldest = max(step.oldest for step in steps)
            line.run(in_schema(_PUT_VERSION.format(newest=len(steps), oldest=oldest), schema), deadline)
        line.run("COMMIT", deadline)
    except ServerError:
        line.run("ROLLBACK", deadline)
        raise


def _check_server(line: Line, name: str, deadline: float) -> None:
    version = line.parameter("server_version")
    if int(re.match(r"\d+", version)[0]) < _OLDEST_SERVER:  # type: ignore[index]  # every server has a number
        raise BudgetStoreError(f"{name}: the server is PostgreSQL {version}; at least {_OLDEST_SERVER} is needed")
    encoding = line.parameter("server_encoding")
    if encoding != "UTF8":
        raise BudgetStoreError(
            f"{name}: the database's encoding is {encoding}; the ledger needs one whose ENCODING is UTF8"
        )
    isolation = line.run("SHOW default_transaction_isolation", deadline)
    if isolation != "read committed":
        raise BudgetStoreError(
            f"{name}: transactions are {str(isolation).upper()} by default, the ledger needs READ COMMITTED ones; "
            "ALTER ROLE ... SET default_transaction_isolation does that"
        )


def _version(line: Line, name: str, schema: str, deadline: float, known: int) -> int:
    """The schema's version, 0 if it does not exist. Raises BudgetStoreError if this package is too old for it."""
    # The tables themselves are read: functions like to_regclass may use a snapshot from before the lock was taken.
    if line.run(_HAS_VERSION.replace("ledger", schema), deadline) is None:
        return 0
    found = line.run(in_schema("SELECT newest || ' ' || oldest FROM ledger.version", schema), deadline)
    newest, oldest = map(int, (found or "0 0").split())
    if oldest > known:
        raise BudgetStoreError(
            f"{name}: the schema {schema} is of a later version of litellm-budget-plugin (it needs schema version {oldest}, "
            f"this one knows {known}); upgrade the package or name another schema"
        )
    return newest
