"""A ledger of version 0.1.0 (written by version_1.py) is upgraded in place, and processes of that version are kept out."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest
import redis

from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import Granted, PutBudget, Read, Reserve, Settle, Settled
from litellm_budget_plugin.core.windows import DAY, SECOND
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.redis.asking import Server as Asked
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.processes import Child
from tests.stores.redis import version_1
from tests.stores.redis.server import Server
from tests.stores.redis.test_copying import exported

Opener = Callable[..., Any]
OwnServer = Callable[..., Server]
TOTALS = 11
"""The index of the one command that an earlier process can still run: it reads a subject's totals, which are unchanged."""
EARLIER = json.loads(gzip.decompress(version_1.FILE.read_bytes()))


def fill(server: Server) -> str:
    """Put the earlier ledger on a server, and return its URL."""
    with server.client() as client:
        for key, content in EARLIER["keys"].items():
            found = {b64decode(name): value if isinstance(value, int) else b64decode(value) for name, value in content}
            if isinstance(content[0][1], int):
                client.zadd(key, found)
            else:
                client.hset(key, mapping=found)
    return server.url.partition("prefix=")[0] + f"prefix={version_1.PREFIX}"


def recorded(project: str) -> dict[str, list[Any]]:
    """The rows as version 0.1.0 exported them, in order. Its holds could be inside other holds, which was never used."""
    rows = EARLIER["rows"][project]
    holds = [
        {
            name: value
            for name, value in {**hold, "reply": hold["reply"] and _read_now(hold["reply"])}.items()
            if name not in ("parent", "lent")
        }
        for hold in rows["holds"]
    ]
    return {
        "accounts": sorted(rows["accounts"], key=lambda row: row["ref"]),
        "holds": sorted(holds, key=lambda row: row["id"]),
        "usage": sorted(rows["usage"]),
    }


def _read_now(reply: str) -> Any:
    """A reply without the thresholds that a charge had crossed, which no longer exist."""
    return {name: value for name, value in json.loads(reply).items() if name != "crossings"}


def present(store: Any, project: str, most: int = 100) -> dict[str, list[Any]]:
    """The rows as they are exported now, in the same form."""
    rows = exported(store, project, most)
    found = {
        "accounts": [asdict(row) for row in rows.accounts],
        "holds": [{**asdict(row), "reply": row.reply and json.loads(row.reply)} for row in rows.holds],
        "usage": list(rows.usage),
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_nothing_is_lost(own_server: OwnServer, opened: Opener) -> None:
    server = own_server()
    store = opened(fill(server), test_clock=True)
    assert store.projects() == sorted(version_1.PROJECTS)
    for project in version_1.PROJECTS:
        assert len(recorded(project)["holds"]) > 50
        assert present(store, project) == recorded(project)
    assert store.projects() == sorted(version_1.PROJECTS)
    with server.client() as client:
        assert client.keys("*:1[ah]") == client.keys("*:lease") == []


def test_it_goes_on_where_it_was(own_server: OwnServer, opened: Opener) -> None:
    """The open hold is settled, and no charge is repeated."""
    store = opened(fill(own_server()), test_clock=True)
    last = next(hold for hold in recorded("app")["holds"] if hold["id"] == "last")
    now = last["at"] - 1
    subjects = tuple(Subject(*subject) for subject in last["subjects"])
    before = store.execute(Read("app", "user", "new", now=now)).accounts
    assert sum(account.held for account in before) == 10
    assert store.execute(Settle("last", "app", subjects, (), 4, "m", defaults=version_1.DEFAULTS, now=now)) == Settled(
        "last"
    )
    after = store.execute(Read("app", "user", "new", now=now)).accounts
    assert [(account.spent, account.held) for account in after] == [(4, 0)] * len(before)
    rows = present(store, "app")
    charged = next(hold for hold in recorded("app")["holds"] if hold["state"] == "settled")
    store.execute(Settle(charged["id"], "app", (Subject("user", "new"),), (), 4, "m", now=now))
    assert present(store, "app") == rows


@pytest.mark.parametrize("moment", range(2, 36, 3))
def test_another_process_goes_on_where_one_died(
    own_server: OwnServer, opened: Opener, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """It dies between any two of its steps: its lease then expires."""
    monkeypatch.setattr("litellm_budget_plugin.stores.redis.upgrading._ROWS", 20)
    monkeypatch.setattr("litellm_budget_plugin.stores.redis.upgrading._LEASE", 50)
    url = fill(own_server())
    answer, left = Asked.answer, [moment]

    def die_in_between(self: Asked, request: Any, deadline: float) -> Any:
        found = answer(self, request, deadline)
        left[0] -= request.script != "check"
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def begin(parent: Child) -> None:
        monkeypatch.setattr(Asked, "answer", die_in_between)
        open_store(url, test_clock=True).execute(Read("app", "user", "alice 0"))

    child = Child(begin)
    assert os.WTERMSIG(os.waitpid(child.pid, 0)[1]) == signal.SIGKILL
    store = opened(url, test_clock=True)
    assert "app" in store.projects()
    assert present(store, "app") == recorded("app")


def test_processes_that_come_at_once_bring_it_over_once(own_server: OwnServer, opened: Opener) -> None:
    url = fill(own_server())
    stores = [opened(url, test_clock=True, timeout=30.0) for _ in range(4)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda store=store: found.append(present(store, "app"))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [recorded("app")] * 4


def ask_as_before(client: redis.Redis, place: int) -> Any:
    """Run a request of a process of version 0.1.0."""
    script, root, *arguments = EARLIER["sent"][place]
    return client.eval(EARLIER["scripts"][script], 1, root, *arguments)


@pytest.mark.parametrize("place", sorted({*range(len(EARLIER["sent"]))} - {TOTALS}))
def test_an_earlier_process_gets_an_error_and_changes_nothing(
    own_server: OwnServer, opened: Opener, place: int
) -> None:
    server = own_server()
    url = fill(server)
    with closing(server.client()) as client:
        ask_as_before(client, 8)
        store = opened(url, test_clock=True)
        # No new process has used this project yet, so the old process can.
        ask_as_before(client, 8)
        rows = present(store, "app")
        with pytest.raises(redis.ResponseError):
            ask_as_before(client, place)
        assert present(store, "app") == rows
        assert client.hget(f"{version_1.PREFIX}{{%check}}:version", "keys") == b"2"


@pytest.mark.parametrize("place", sorted({*range(len(EARLIER["sent"]))} - {TOTALS}))
def test_an_earlier_process_is_kept_out_of_new_projects_too(own_server: OwnServer, opened: Opener, place: int) -> None:
    """The commands name subjects that the ledger has, and holds that it does not know."""
    server = own_server()
    store = opened(server.url.partition("prefix=")[0] + f"prefix={version_1.PREFIX}")
    user, last = (Subject("user", "alice 0"),), (Subject("user", "rich"),)
    store.execute(PutBudget("c", "app", user[0], limit=100))
    assert store.execute(Reserve("h", "app", user, (), Amounts(5), SECOND)) == Granted("h", Amounts(5))
    store.execute(Settle("i", "app", last, (), 1, "m"))
    with closing(server.client()) as client, pytest.raises(redis.ResponseError):
        ask_as_before(client, place)


def test_an_earlier_process_may_read_totals(own_server: OwnServer, opened: Opener) -> None:
    """They are correct, or, if its format cannot express them, it gets an error."""
    server = own_server()
    url = fill(server)
    rich = (Subject("user", "rich"),)
    with closing(server.client()) as client:
        before = ask_as_before(client, TOTALS)
        store = opened(url, test_clock=True)
        store.execute(Settle("one more", "app", rich, (), 5, "new", now=version_1.START))
        after = ask_as_before(client, TOTALS)
        assert [row for row in after if row not in before] == [
            [b"rich", version_1.START // DAY, b"new", 5, 1, 0, 0, 0, 0]
        ]
        for number in range(2):
            store.execute(Settle(f"large {number}", "app", rich, (), version_1.MOST, "new", now=version_1.START))
        with pytest.raises(redis.ResponseError):
            ask_as_before(client, TOTALS)


def test_commands_with_little_time_bring_it_over_together(
    own_server: OwnServer, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each does at least one step, and leaves its lease to the next."""
    monkeypatch.setattr("litellm_budget_plugin.stores.redis.upgrading._ROWS", 20)
    monkeypatch.setattr("litellm_budget_plugin.stores.redis.upgrading._LEASE", 60_000)
    monkeypatch.setattr("litellm_budget_plugin.stores.redis.upgrading._MARGIN", 10.0)
    store = opened(fill(own_server()), test_clock=True)
    away = 0
    while True:
        try:
            store.execute(Read("app", "user", "new", now=version_1.START))
            break
        except BudgetStoreUnavailable as error:
            assert "being upgraded" in str(error)
            away += 1
            assert away < 30
    assert away > 5
    assert present(store, "app") == recorded("app")
