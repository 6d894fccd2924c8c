"""Write version_1.json.gz: a ledger of version 0.1.0, its rows, and requests of a process of that version.

Run it with the code of that version (commit 017f537): PYTHONPATH=/path/of/that/checkout python version_1.py
"""

from __future__ import annotations

import gzip
import json
import random
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import (
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Release,
    Renew,
    Reserve,
    Reset,
    Settle,
    Sweep,
)  # fmt: skip
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.redis.scripts import script
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.redis.server import Server

START = 1_774_734_000 * SECOND
MOST = 2**53 - 1
PREFIX = "v1:"
PROJECTS = ("app", "größe {1}", "")
FILE = Path(__file__).with_name("version_1.json.gz")
DEFAULTS = (
    Default("user", "none", 5000),
    Default("user", "day@Europe/Berlin", 3000, carry_over=500),
    Default("team", "12h", 9000, "gpt-4o*"),
    Default("team", "none", 100, "", "calls"),
)


def fill(store: Any, project: str, chance: random.Random, calls: int) -> None:
    """Make every kind of row."""
    users = [Subject("user", f"{name} {number}") for number in range(7) for name in ("alice", "größe", "\U0001f600:1")]
    now = START
    for number in range(calls):
        now += chance.randrange(60 * SECOND)
        subjects = (chance.choice(users), Subject("team", chance.choice("ab")), Subject("project", project or "none"))
        models = ("gpt-4o", "gpt-4o*")
        hold = f"h{number}"
        if chance.random() < 0.1:
            budget = PutBudget(
                f"c{number}", project, chance.choice(users), limit=chance.choice([None, 900, 4000]),
                window=chance.choice(["none", "month", "week:7"]), blocked=chance.random() < 0.1, raised_by=50,
                raised_until=now + DAY, carry_over=70, defaults=DEFAULTS, now=now,
            )  # fmt: skip
            ask(store, budget)
        want = Amounts(chance.randrange(1, 900), 1, 50)
        ask(store, Reserve(hold, project, subjects, models, want, 90 * SECOND, DEFAULTS, Amounts(9, 1, 5), now=now))
        ending = chance.random()
        if ending < 0.6:
            settle = Settle(
                hold, project, subjects, models, chance.randrange(900), "gpt-4o", 30, 20, defaults=DEFAULTS,
                aliases=(f"r{number}",), unless=f"r{number - 1}" if ending < 0.05 else None, thresholds=(200_000, 800_000),
                now=now,
            )  # fmt: skip
            ask(store, settle)
        elif ending < 0.7:
            ask(store, Release(hold, project, now=now))
        elif ending < 0.75:
            ask(store, DropBudget(f"d{number}", project, chance.choice(users), now=now))
    rich = (Subject("user", "rich"),)
    for number in range(5):
        ask(store, Settle(f"rich {number}", project, rich, (), MOST, f"m:{number}", thresholds=(1_000_000,), now=now))
    ask(store, Sweep(project, marks_kept=2 * DAY, days_kept=0, now=now + DAY))
    newcomer = (Subject("user", "new"), Subject("team", "c"))
    ask(store, Reserve("last", project, newcomer, ("gpt-4o*",), Amounts(5, 1), 60 * SECOND, DEFAULTS, now=now + DAY))
    ask(store, Settle("late", project, rich, (), MOST, "m:0", now=now + DAY))


def commands(project: str) -> list[Any]:
    """The commands that a process that is still running may send."""
    user = Subject("user", "alice 0")
    return [
        Reserve("new", project, (user,), (), Amounts(1), SECOND, DEFAULTS),
        Settle("new", project, (user,), (), 1, "m", defaults=DEFAULTS),
        Settle("last", project, (user,), (), 1, "m", defaults=DEFAULTS),
        Release("last", project),
        Renew(("last",), project, SECOND),
        PutBudget("new", project, user, limit=5, defaults=DEFAULTS),
        DropBudget("new", project, user),
        Reset("new", project, user),
        Read(project, "user"),
        Read(project, "user", "alice 0"),
        ReadUsage(project, "user"),
        ReadUsage(project, "user", "rich"),
        Sweep(project, 0, 0),
    ]


def rows_of(store: Any, project: str) -> dict[str, list[Any]]:
    """Every row of a project, as `export` gives it."""
    found: dict[str, list[Any]] = {"accounts": [], "holds": [], "usage": []}
    after = ""
    while after is not None:
        page = store.export(project, after, 100)
        for kind in found:
            found[kind] += [asdict(one) if kind != "usage" else one for one in getattr(page.rows, kind)]
        after = page.after
    return found


def main() -> None:
    server = Server()
    url = server.url.partition("prefix=")[0] + f"prefix={PREFIX}"
    store = open_store(url, test_clock=True)
    for place, project in enumerate(PROJECTS):
        fill(store, project, random.Random(place), 400 if place == 0 else 40)
    scripts: dict[str, str] = {}
    sent = []
    for command in commands("app"):
        request = store._request(command)
        scripts[request.script] = script(request.script).text.decode()
        sent.append([request.script, request.root.decode(), request.arguments.decode(), request.defaults.decode()])
    with server.client() as client:
        keys = {}
        for key in sorted(client.keys("*")):
            kind = client.type(key).decode()
            content = client.hgetall(key) if kind == "hash" else dict(client.zrange(key, 0, -1, withscores=True))
            keys[key.decode()] = [
                [b64encode(name).decode(), b64encode(value).decode() if kind == "hash" else int(value)]
                for name, value in content.items()
            ]
    rows = {project: rows_of(store, project) for project in PROJECTS}
    text = json.dumps(
        {"keys": keys, "rows": rows, "scripts": scripts, "sent": sent}, ensure_ascii=False, sort_keys=True
    )
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    server.stop()


if __name__ == "__main__":
    main()
