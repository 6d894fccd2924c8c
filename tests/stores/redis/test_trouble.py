"""Servers that end, stall, refuse or lose answers."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Granted, PutBudget, Read, Settled
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.redis import lines as redis_lines
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.faults import answers_in_time_though_names_do_not, survives_interrupts, survives_kills_among_traffic
from tests.stores.processes import Child
from tests.stores.redis.proxy import RedisProxy
from tests.stores.redis.server import Server, free_port

Opener = Callable[..., Any]
OwnServer = Callable[..., Server]
ROOT = Path(__file__).parents[3]
DURABLE = ("appendonly yes", "appendfsync always")


def free_places(store: Any) -> int:
    """The number of further connections that a store on one server may use."""
    (lines,) = store._engine._server._route._servers.values()
    return int(lines.places.free)


def test_kills_among_traffic(own_server: OwnServer, opened: Opener) -> None:
    server = own_server(*DURABLE)
    survives_kills_among_traffic(server, opened(server.url, timeout=5.0))


def test_an_answer_that_is_lost(own_server: OwnServer, opened: Opener) -> None:
    """The call itself repeats the command after one lost answer; after two, the store is unavailable. In both cases
    each command counts once.
    """
    server = own_server()
    proxy = RedisProxy(server.port)
    url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
    with closing(proxy):
        store = opened(url)
        assert store.execute(charge_of("h0")) == Settled("h0")
        proxy.lose_answers(1)
        assert store.execute(charge_of("h1")) == Settled("h1")
        proxy.lose_answers(2)
        with pytest.raises(BudgetStoreUnavailable, match="was lost"):
            store.execute(hold_of("h2"))
        assert proxy.lost == 3
        assert store.execute(hold_of("h2")) == Granted("h2", hold_of("h2").want)
        assert (account_of(store).spent, account_of(store).held, calls_of(store)) == (20, 10, 2)
        proxy.lose_answers(2)
        with pytest.raises(BudgetStoreUnavailable):
            store.execute_all([charge_of("h3"), charge_of("h4")])
        assert store.execute_all([charge_of("h3"), charge_of("h4")]) == [Settled("h3"), Settled("h4")]
        assert calls_of(store) == 4


def test_a_server_that_stalls(own_server: OwnServer, opened: Opener) -> None:
    """On an existing connection, and on one that must be opened."""
    server = own_server()
    store = opened(server.url)
    store.execute(charge_of("before"))
    server.send(signal.SIGSTOP)
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(BudgetStoreUnavailable, match="no answer within 0.1 s"):
                store.execute(charge_of("h"), timeout=0.1)
            assert 0.09 <= time.monotonic() - began < 1.0
        began = time.monotonic()
        with pytest.raises(BudgetStoreUnavailable):
            open_store(server.url, timeout=0.1)
        assert time.monotonic() - began < 1.0
    finally:
        server.send(signal.SIGCONT)
    assert store.execute(charge_of("h")) == Settled("h")
    assert calls_of(store) == 2


def test_an_answer_that_trickles(own_server: OwnServer, opened: Opener) -> None:
    """A time-out for each single read would never end it."""
    server = own_server()
    proxy = RedisProxy(server.port)
    with closing(proxy):
        store = opened(server.url.replace(f":{server.port}/", f":{proxy.port}/"))
        store.execute(charge_of("h"))
        proxy.trickle(b"*1\r\n")
        began = time.monotonic()
        with pytest.raises(BudgetStoreUnavailable, match="no answer within 0.2 s"):
            store.execute(charge_of("h2"), timeout=0.2)
        assert time.monotonic() - began < 1.0


def test_a_name_that_is_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers_in_time_though_names_do_not(
        monkeypatch, lambda: open_store("redis://nowhere.example", timeout=0.1), "redis://nowhere.example"
    )


def test_a_server_that_is_away() -> None:
    began = time.monotonic()
    with pytest.raises(
        BudgetStoreUnavailable, match=r"redis://\*\*\*@127.0.0.1:\d+: the connection could not be made"
    ) as raised:
        open_store(f"redis://:secret@127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 1.0
    assert "secret" not in str(raised.value)


def test_connections_that_went_stale(own_server: OwnServer, opened: Opener) -> None:
    """A restart of the server between commands causes no error."""
    server = own_server(*DURABLE)
    store = opened(server.url)
    store.execute(charge_of("before"))
    server.kill()
    server.start()
    assert store.execute(charge_of("after")) == Settled("after")
    assert calls_of(store) == 2


def test_scripts_that_the_server_forgets(own_server: OwnServer, opened: Opener) -> None:
    """For one command and for many at once, in their order, even if some scripts are still known."""
    server = own_server()
    store = opened(server.url)
    with server.client() as client:
        client.script_flush()
        assert store.execute(hold_of("a")) == Granted("a", hold_of("a").want)
        client.script_flush()
        store.execute(charge_of("warm"))
        assert store.execute_all([hold_of("b"), charge_of("b"), hold_of("c"), charge_of("c")]) == [
            Granted("b", hold_of("b").want), Settled("b"), Granted("c", hold_of("c").want), Settled("c"),
        ]  # fmt: skip
    assert (account_of(store).spent, account_of(store).held) == (30, 10)


def test_no_more_connections_than_allowed(own_server: OwnServer, opened: Opener) -> None:
    """A command without a free connection waits, and a time-out names the cause."""
    server = own_server()
    store = opened(f"{server.url}&connections=2", timeout=10.0)
    threads = [threading.Thread(target=store.execute, args=(charge_of(f"{n}"),)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.client() as client:
        assert len([one for one in client.client_list() if one["addr"].startswith("127.")]) <= 2
    server.send(signal.SIGSTOP)
    try:
        stuck = [
            threading.Thread(
                target=pytest.raises, args=(BudgetStoreUnavailable, store.execute, charge_of(f"s{n}"), 1.0)
            )
            for n in range(2)
        ]
        for thread in stuck:
            thread.start()
        while free_places(store):
            time.sleep(0.001)
        with pytest.raises(BudgetStoreUnavailable, match="all 2 connections"):
            store.execute(charge_of("late"), timeout=0.05)
        for thread in stuck:
            thread.join()
    finally:
        server.send(signal.SIGCONT)
    assert store.execute(charge_of("late")) == Settled("late")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(own_server: OwnServer, policy: str) -> None:
    """Also if it reports its policy only by INFO, as managed servers do."""
    settings = ("maxmemory-policy " + policy, 'rename-command CONFIG ""')
    for some in (settings[:1], settings):
        with pytest.raises(BudgetStoreError, match=f"evicts keys.*{policy}.*set maxmemory-policy noeviction") as raised:
            open_store(own_server(*some).url)
        assert not isinstance(raised.value, BudgetStoreUnavailable)


def test_a_server_that_does_not_tell_is_warned_of_once(
    own_server: OwnServer, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(own_server('rename-command CONFIG ""', 'rename-command INFO ""').url)
    store.execute(charge_of("h"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "noeviction" in warnings[0]


def test_a_server_without_memory_changes_nothing(own_server: OwnServer, opened: Opener) -> None:
    """A refused command is refused as a whole."""
    server = own_server()
    store = opened(server.url)
    store.execute(hold_of("h"))
    with server.client() as client:
        client.config_set("maxmemory", 1)
        for command in (charge_of("h"), hold_of("h2")):
            with pytest.raises(BudgetStoreError, match="memory is full"):
                store.execute(command)
        assert (account_of(store).spent, account_of(store).held) == (0, 10)
        client.config_set("maxmemory", 0)
    assert store.execute(charge_of("h")) == Settled("h")
    assert (account_of(store).spent, account_of(store).held) == (10, 0)


def test_passwords_and_permissions(own_server: OwnServer, opened: Opener) -> None:
    """The ACL of docs/redis.md suffices, and a missing permission is reported at the start."""
    server = own_server("requirepass secret")
    place = server.url.removeprefix("redis://")
    for url, hint in (
        (server.url, "asks for a password|refuses the user"),
        (f"redis://:wrong@{place}", "refuses the user"),
    ):
        with pytest.raises(BudgetStoreError, match=hint) as raised:
            open_store(url)
        assert not isinstance(raised.value, BudgetStoreUnavailable) and "wrong" not in str(raised.value)
    page = (ROOT / "docs" / "redis.md").read_text()
    (acl,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER")]
    rules = [word.strip('"') for word in acl.split()[3:] if not word.startswith(("~", ">", "on"))]
    with server.client(password="secret") as client:
        client.execute_command("ACL", "SETUSER", "ledger", "on", ">pw", "~t*", *rules)
        client.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~t*", *rules, "-zadd")
    store = opened(f"redis://ledger:pw@{place}")
    assert store.execute(charge_of("h")) == Settled("h")
    assert store.projects() == ["p"]
    with pytest.raises(BudgetStoreError, match="lacks a permission") as raised:
        open_store(f"redis://poor:pw@{place}")
    assert not isinstance(raised.value, BudgetStoreUnavailable)


def test_a_replica_and_a_later_version(own_server: OwnServer) -> None:
    master = own_server()
    replica = own_server(f"replicaof 127.0.0.1 {master.port}")
    with replica.client() as client:
        while client.info("replication")["master_link_status"] != "up":
            time.sleep(0.01)
    with pytest.raises(BudgetStoreUnavailable, match="read-only replica"):
        open_store(replica.url)
    url = master.url
    open_store(url).close()
    with master.client() as client:
        client.hset(url.partition("prefix=")[2] + "{%check}:version", "keys", 3)
    with pytest.raises(BudgetStoreError, match="later version"):
        open_store(url)


def test_a_clock_that_is_wrong_by_an_hour(url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock counts: the worker's hold neither expires at once nor stays longer."""
    right, wrong = opened(url), opened(url)
    for off in (-3600, 3600):
        now = int((time.time() + off) * 1e6)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now / 1e6)
            patch.setattr(time, "time_ns", lambda now=now: now * 1000)
            wrong.execute(hold_of(f"h{off}", now=now))
        assert right.execute(hold_of(f"h{off}")) == Granted(f"h{off}", hold_of("h").want)
    assert account_of(right).held == 20
    assert abs(right.execute(Read("p", "user")).now - time.time() * 1e6) < 60e6


def test_a_worker_that_is_killed_while_it_holds(url: str, opened: Opener) -> None:
    """Its hold ends at the time limit, and is charged its floor."""
    store, start = opened(url, test_clock=True), 1_774_734_000_000_000

    def hold(parent: Child) -> None:
        open_store(url, test_clock=True).execute(hold_of("h", usd=100, floor=7, now=start))
        parent.tell()
        parent.wait()

    child = Child(hold)
    child.wait()
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert account_of(store, now=start + 59_000_000).held == 100
    state = account_of(store, now=start + 60_000_000)
    assert (state.spent, state.held) == (7, 0)


def test_a_fork_with_open_connections(own_server: OwnServer, opened: Opener) -> None:
    """The child opens its own connections, and its end does not affect the parent's."""
    server = own_server()
    store = opened(server.url)
    store.execute(charge_of("before"))

    def ids() -> set[str]:
        with server.client() as client:
            return {one["id"] for one in client.client_list() if one["addr"].startswith("127.")}

    before = ids()
    said = Child(lambda parent: (store.execute(charge_of("child")), len(ids() - before), store.close())[1]).result()
    assert said == "1"
    assert store.execute(charge_of("after")) == Settled("after")
    assert ids() == before
    assert calls_of(store) == 3


def test_an_asker_that_is_interrupted_leaves_no_answer_behind(
    url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command would take it for its own answer."""
    store = opened(url)
    store.execute(charge_of("before"))
    exchange, interrupted = redis_lines.Line.exchange, []

    def interrupt(self: Any, packed: Any, deadline: float) -> Any:
        if not interrupted:
            interrupted.append(True)
            self.connection.send_packed_command([b"".join(packed)], check_health=False)
            raise KeyboardInterrupt
        return exchange(self, packed, deadline)

    monkeypatch.setattr(redis_lines.Line, "exchange", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.execute(charge_of("h"))
    assert store.execute(hold_of("h2")) == Granted("h2", hold_of("h2").want)
    assert free_places(store) == 16


def test_an_interrupt_at_any_moment_leaves_every_place(url: str, opened: Opener) -> None:
    """Also an interrupt between taking a place and recording that it was taken."""
    store = opened(f"{url}&connections=1", timeout=10.0)
    survives_interrupts(store, "stores/redis")
    assert free_places(store) == 1


def test_text_that_is_no_text(url: str, opened: Opener) -> None:
    store = opened(url)
    for command in (charge_of("\ud800"), PutBudget("c", "\ud800", Subject("user", "a"), limit=1)):
        with pytest.raises(BudgetInputError, match="cannot be stored"):
            store.execute(command)
    # Scripts do not compute with this number, so it need not fit a double.
    store.execute(PutBudget("c", "p", Subject("user", "a"), raised_until=2**53 - 1))
    assert store.execute(Read("p", "user", "a")).accounts[0].raised_until == 2**53 - 1
    assert store.execute(charge_of("h")) == Settled("h")


def test_a_charge_that_cannot_be_stored_keeps_none_of_the_others_back(url: str, opened: Opener) -> None:
    """Also among charges to slices, which one transaction applies."""
    store = opened(url)
    store.execute(hold_of("slice", 500))
    charges = [replace(charge_of(f"h{number}"), parent="slice") for number in range(9)]
    charges[4] = replace(charges[4], hold="\ud800")
    outcomes = store.execute_all(charges)
    assert isinstance(outcomes[4], BudgetInputError)
    assert [each for each in outcomes if isinstance(each, Settled)] == [Settled(f"h{n}") for n in range(9) if n != 4]
    assert account_of(store).spent == 80


def test_eight_processes_race_for_one_account(url: str, opened: Opener) -> None:
    """A limit of 1000 has room for 33 holds of 30."""
    command = [sys.executable, "-m", "tests.stores.worker", "race", url, "12"]
    workers = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)
    ]
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    granted = 0
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        granted += int(worker.communicate()[0])
        assert worker.returncode == 0
    assert granted == 33
    assert account_of(opened(url)).held == 990
