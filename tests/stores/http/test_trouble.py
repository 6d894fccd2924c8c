"""Endpoints that end, stall, refuse, lose answers, or are something else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Granted, PutBudget, Settled
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.http import client
from litellm_budget_plugin.stores.http.address import parse_address
from litellm_budget_plugin.stores.http.client import HttpClient
from litellm_budget_plugin.stores.registry import open_store
from tests.server.process import PATIENCE, Served, free_port
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.faults import answers_in_time_though_names_do_not, survives_interrupts, survives_kills_among_traffic
from tests.stores.http.fake import running
from tests.stores.http.proxy import HttpProxy
from tests.stores.processes import Child

Opener = Callable[..., Any]
OwnServer = Callable[..., Served]


def test_kills_among_traffic(own_server: OwnServer, opened: Opener) -> None:
    server = own_server()
    survives_kills_among_traffic(server, opened(server.url(), timeout=5.0))


def test_an_answer_that_is_lost(own_server: OwnServer, opened: Opener) -> None:
    """The call itself repeats the request after two lost answers; after three, the store is unavailable. In both cases
    each command counts once.
    """
    server = own_server()
    proxy = HttpProxy(server.port)
    with closing(proxy):
        store = opened(proxy.url)
        proxy.lose_answers(2)
        assert store.execute(charge_of("h1")) == Settled("h1")
        proxy.lose_answers(3)
        with pytest.raises(BudgetStoreUnavailable, match="was lost"):
            store.execute(hold_of("h2"))
        assert proxy.lost == 5
        assert store.execute(hold_of("h2")) == Granted("h2", hold_of("h2").want)
        assert (account_of(store).spent, account_of(store).held, calls_of(store)) == (10, 10, 1)
        proxy.lose_answers(3)
        with pytest.raises(BudgetStoreUnavailable):
            store.execute_all([charge_of("h3"), charge_of("h4")])
        assert store.execute_all([charge_of("h3"), charge_of("h4")]) == [Settled("h3"), Settled("h4")]
        assert calls_of(store) == 3


def test_a_server_that_stalls(own_server: OwnServer, opened: Opener) -> None:
    """On an existing connection, and on one that must be opened."""
    server = own_server()
    store = opened(server.url())
    store.execute(charge_of("before"))
    server.send(signal.SIGSTOP)
    try:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(BudgetStoreUnavailable, match=r"no answer within 0\.1 s"):
                store.execute(charge_of("h"), timeout=0.1)
            assert 0.09 <= time.monotonic() - began < 1.0
        began = time.monotonic()
        with pytest.raises(BudgetStoreUnavailable):
            open_store(server.url(), timeout=0.1)
        assert time.monotonic() - began < 1.0
    finally:
        server.send(signal.SIGCONT)
    assert store.execute(charge_of("h")) == Settled("h")
    assert calls_of(store) == 2


def test_an_answer_that_trickles(own_server: OwnServer, opened: Opener) -> None:
    """A time-out for each single read would never end it."""
    proxy = HttpProxy(own_server().port)
    with closing(proxy):
        store = opened(proxy.url)
        for part in (b"HTTP/1.1 200 OK\r\nx-a: 1\r\n", b" "):
            proxy.trickle(part)
            began = time.monotonic()
            with pytest.raises(BudgetStoreUnavailable):
                store.execute(charge_of("h2"), timeout=0.2)
            assert time.monotonic() - began < 1.0


def test_a_name_that_is_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers_in_time_though_names_do_not(
        monkeypatch, lambda: open_store("http://nowhere.example", timeout=0.1), "http://nowhere.example"
    )


def test_a_server_that_is_away() -> None:
    began = time.monotonic()
    with pytest.raises(
        BudgetStoreUnavailable, match=r"http://127.0.0.1:\d+: the connection could not be made"
    ) as raised:
        open_store(f"http://:secret@127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 1.0
    assert "secret" not in str(raised.value)


def test_connections_that_went_stale(own_server: OwnServer, opened: Opener) -> None:
    """A restart of the server between commands causes no error."""
    server = own_server()
    store = opened(server.url())
    store.execute(charge_of("before"))
    server.kill()
    server.start()
    assert store.execute(charge_of("after")) == Settled("after")
    assert calls_of(store) == 2


def test_a_server_that_ends_answers_what_was_begun(own_server: OwnServer, opened: Opener) -> None:
    """SIGTERM during traffic: answered commands are in the ledger, and the server ends by itself."""
    server = own_server()
    store, done, acknowledged = opened(server.url(), timeout=5.0), threading.Event(), [0] * 4

    def work(thread: int) -> None:
        while not done.is_set():
            try:
                store.execute(charge_of(f"{thread}-{acknowledged[thread]}"))
                acknowledged[thread] += 1
            except BudgetStoreUnavailable:
                return

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while sum(acknowledged) < 200:
        time.sleep(0.001)
    assert server.terminate() in (0, -signal.SIGTERM)
    done.set()
    for thread in threads:
        thread.join()
    server.start()
    assert sum(acknowledged) <= calls_of(store) <= sum(acknowledged) + 4


def test_no_more_connections_than_allowed(own_server: OwnServer, opened: Opener) -> None:
    """A command without a free connection waits, and a time-out names the cause."""
    server = own_server()
    proxy = HttpProxy(server.port)
    with closing(proxy):
        store = opened(f"{proxy.url}?connections=2", timeout=10.0)
        threads = [threading.Thread(target=store.execute, args=(charge_of(f"{n}"),)) for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.accepted <= 2
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
            while store._exchange._own.places.free:
                time.sleep(0.001)
            with pytest.raises(BudgetStoreUnavailable, match="all 2 connections"):
                store.execute(charge_of("late"), timeout=0.05)
            for thread in stuck:
                thread.join()
        finally:
            server.send(signal.SIGCONT)
        assert store.execute(charge_of("late")) == Settled("late")


def test_a_fork_with_open_connections(own_server: OwnServer, opened: Opener) -> None:
    """The child opens its own connections, and its end does not affect the parent's."""
    server = own_server()
    proxy = HttpProxy(server.port)
    with closing(proxy):
        store = opened(proxy.url)
        store.execute(charge_of("before"))
        before = proxy.accepted
        assert Child(lambda parent: (store.execute(charge_of("child")), store.close())[0]).result() == str(
            Settled("child")
        )
        assert proxy.accepted == before + 1
        assert store.execute(charge_of("after")) == Settled("after")
        assert proxy.accepted == before + 1
        assert calls_of(store) == 3


def test_a_worker_that_is_killed_while_it_holds(url: str, opened: Opener) -> None:
    """Its hold ends at the time limit, and is charged its floor."""
    store, start = opened(url, test_clock=True), 1_774_734_000_000_000

    def hold(parent: Child) -> None:
        open_store(url, test_clock=True, timeout=30.0).execute(hold_of("h", usd=100, floor=7, now=start))
        parent.tell()
        parent.wait()

    child = Child(hold)
    child.wait()
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert account_of(store, now=start + 59_000_000).held == 100
    state = account_of(store, now=start + 60_000_000)
    assert (state.spent, state.held) == (7, 0)


def test_an_interrupt_at_any_moment_leaves_every_place(url: str, opened: Opener) -> None:
    """It also leaves no answer behind, which the next command would take for its own."""
    store = opened(f"{url}?connections=1", timeout=10.0)
    survives_interrupts(store, "stores/http", last=400, step=3)
    assert store._exchange._own.places.free == 1


def test_text_that_is_no_text(url: str, opened: Opener) -> None:
    store = opened(url)
    for command in (charge_of("\ud800"), PutBudget("c", "\ud800", Subject("user", "a"), limit=1)):
        with pytest.raises(BudgetInputError, match="Unicode"):
            store.execute(command)
    with pytest.raises(BudgetInputError, match="numbers must be"):
        store.execute(PutBudget("c", "p", Subject("user", "a"), raised_until=2**60))
    assert store.execute(charge_of("h")) == Settled("h")


def test_a_key_that_is_wrong_missing_or_revoked(own_server: OwnServer, opened: Opener) -> None:
    """Each needs a person to fix it, and the messages contain no key."""
    server = own_server()
    key, other = server.create_key("p"), server.create_key("q")
    server.terminate()
    server.start()
    store = opened(server.url(key))
    assert store.execute(charge_of("h")) == Settled("h")
    for bad in ("", key[:-1] + ("a" if key[-1] != "a" else "b"), "nonsense"):
        with pytest.raises(BudgetStoreError, match="answered 401.*LITELLM_BUDGET_API_KEY") as raised:
            opened(server.url(bad))
        assert not isinstance(raised.value, BudgetStoreUnavailable)
        assert not bad or bad not in str(raised.value)
    with pytest.raises(BudgetStoreError, match="does not open the project 'p'"):
        opened(server.url(other)).execute(charge_of("h"))
    server.revoke(key)
    end = time.monotonic() + 30
    with pytest.raises(BudgetStoreError, match="answered 401"):
        while time.monotonic() < end:
            store.execute(charge_of("again"))


def test_no_thread_of_a_child_takes_the_parents_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread makes the child's own."""
    with running() as fake:
        exchange = HttpClient(parse_address("http", fake.base))
        theirs, taken = exchange._own, []
        making, made = threading.Event(), threading.Event()

        def slow(name: str) -> None:
            making.set()
            made.wait(PATIENCE)

        def take() -> None:
            with pytest.raises(BudgetStoreUnavailable):
                exchange.request("GET", "/v1", None, 0.0)
            taken.append(exchange._own)

        monkeypatch.setattr(os, "getpid", lambda: theirs.pid + 1)
        monkeypatch.setattr(client, "find_spec", slow)
        threads = [threading.Thread(target=take) for _ in range(2)]
        threads[0].start()
        making.wait(PATIENCE)
        assert exchange._own is theirs
        threads[1].start()
        made.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(taken) == 2 and all(own.pid == theirs.pid + 1 and own.pool is not theirs.pool for own in taken)
        exchange.close()
