"""Write a ledger with version 0.1.0 of the package and dump it, for test_upgrade.py:

    git worktree add --detach ../0.1.0 017f537
    cd ../0.1.0 && PYTHONPATH=. python ../main/tests/stores/postgres/written_by_0_1_0.py ../main/tests/stores/postgres/version_1.json.gz

The dump has the schema with its functions, the rows as 0.1.0 exported them, and some of its commands.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import DropBudget, PutBudget, Release, Reserve, Reset, Settle
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.postgres.server import Server

SCHEMA = "litellm_budget"
START = 1_774_734_000_000_000
MINUTE = 60_000_000
ALICE, BOB, TEAM, APP = Subject("user", "alice"), Subject("user", "bob"), Subject("team", "t"), Subject("project", "p")
LONG = Subject("tag", "\U0001f600" * 256)
DEFAULTS = (
    Default("user", "none", 1000),
    Default("user", "day", 500, "gpt-4o"),
    Default("team", "90s", 4000, carry_over=50),
    Default("team", "none", 100, unit="calls"),
    Default("project", "month@Europe/Berlin", 10**6),
    Default("tag", "none", 10**6),
)


def write(url: str) -> dict[str, list[Any]]:
    """Write a ledger with every kind of row, and return its rows."""
    store = open_store(url, test_clock=True, timeout=60.0)

    def reserve(hold: str, usd: int, *subjects: Subject, now: int = START, **more: Any) -> None:
        ask(
            store,
            Reserve(
                hold, "p", subjects or (ALICE, TEAM, APP), ("gpt-4o",), Amounts(usd, 1, 50), MINUTE, DEFAULTS,
                floor=Amounts(3, 1, 5), now=now, **more,
            ),
        )  # fmt: skip

    def settle(hold: str, usd: int, *subjects: Subject, now: int = START, **more: Any) -> None:
        subjects = subjects or (ALICE, TEAM, APP)
        ask(store, Settle(hold, "p", subjects, ("gpt-4o",), usd, "gpt-4o-x", 5, 6, defaults=DEFAULTS, now=now, **more))

    reserve("expires", 10)
    reserve("settled late", 10, BOB)
    settle("late", 7, BOB, now=START + MINUTE)
    settle("settled late", 4, BOB, now=START + MINUTE)
    reserve("open", 10, now=START + MINUTE)
    reserve("closed", 20, now=START + MINUTE)
    settle("closed", 15, now=START + MINUTE, aliases=("response", "\U0001f600" * 900))
    settle("crossing", 300, now=START + MINUTE, thresholds=(200_000, 800_000))
    reserve("refused", 5000, now=START + MINUTE)
    reserve("long", 10, LONG, now=START + MINUTE)
    reserve("l" * 900, 10, ALICE, now=START + MINUTE)
    reserve("parent", 100, ALICE, now=START + MINUTE)
    reserve("child", 30, ALICE, now=START + MINUTE, parent="parent")
    ask(store, Release("never seen", "p", now=START + MINUTE))
    carol = Subject("user", "carol")
    ask(store, PutBudget("c1", "p", carol, window="7d", limit=77, blocked=True, only=True, now=START + MINUTE))
    ask(store, PutBudget("c2", "p", BOB, limit=900, raised_by=5, raised_until=START + 9 * MINUTE, now=START + MINUTE))
    reserve("on dropped", 10, BOB, now=START + MINUTE)
    ask(store, DropBudget("c3", "p", BOB, now=START + MINUTE))
    ask(store, Reset("c4", "p", TEAM, now=START + MINUTE))
    ask(store, replace(PutBudget("c5", "q", ALICE, limit=5, now=START), model="m"))
    rows = {project: everything(store, project) for project in store.projects()}
    store.close()
    return rows


def messages() -> dict[str, str]:
    """A command for each function of 0.1.0 that would apply it, by the functions' names."""
    given = (
        Reserve("new", "p", (ALICE,), ("m",), Amounts(1), MINUTE, DEFAULTS[:1]),
        Settle("new", "p", (ALICE,), ("m",), 9, "m", defaults=DEFAULTS[:1]),
        PutBudget("new", "p", ALICE, limit=5),
    )
    from litellm_budget_plugin.stores.postgres.messages import message_of

    found = [message_of(command, False) for command in given]
    return {functions[0]: message for functions, message in found}


def everything(store: Any, project: str) -> list[Any]:
    """All rows of a project, as JSON has them."""
    rows: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = store.export(project, after, 100)
        for part in page.rows:
            rows += [
                {name: getattr(row, name) for name in row.__slots__} if hasattr(row, "id") else row for row in part
            ]
        after = page.after
    return rows


def main(target: str) -> None:
    """Write the dump."""
    server = Server("fsync=off")
    rows = write(server.url(SCHEMA))
    command = [
        str(server._bin / "pg_dump"),
        "-h",
        str(server.folder),
        "-U",
        "postgres",
        "-n",
        SCHEMA,
        "--inserts",
        "postgres",
    ]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    server.remove()
    # Lines for psql are removed.
    sql = "\n".join(line for line in dump.split("\n") if line and not line.startswith(("\\", "--")))
    Path(target).write_bytes(
        gzip.compress(json.dumps({"sql": sql, "rows": rows, "messages": messages()}).encode(), mtime=0)
    )


if __name__ == "__main__":
    main(sys.argv[1])
