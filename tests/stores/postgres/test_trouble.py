"""Servers that end, stall, lose answers or refuse: nothing acknowledged is lost, nothing counts twice, no caller waits forever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from litellm_budget_plugin.core.accounts import Amounts
from litellm_budget_plugin.core.commands import Granted, Release, Released, Settled
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.postgres.conftest import Look
from tests.stores.postgres.proxy import PostgresProxy
from tests.stores.postgres.server import Server, shared

Opener = Callable[..., Store]
Starter = Callable[..., Server]


class Traffic:
    """Threads that hold and charge, and repeat each command until it is answered."""

    def __init__(self, store: Store, threads: int = 4) -> None:
        self.charged = self.unanswered = 0
        self._store, self._done, self._lock = store, threading.Event(), threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _work(self, thread: int) -> None:
        try:
            for number in count():
                if self._done.is_set():
                    return
                name = f"{thread}-{number}"
                self._repeat(hold_of(name, usd=0))
                assert self._repeat(charge_of(name, usd=0)) == Settled(name)
                with self._moved:
                    self.charged += 1
                    self._moved.notify_all()
        except BaseException as failure:
            self._failures.append(failure)

    def _repeat(self, command: object) -> object:
        while True:
            try:
                return self._store.execute(command)  # type: ignore[arg-type]
            except BudgetStoreUnavailable:
                with self._lock:
                    self.unanswered += 1
                time.sleep(0.01)

    def flows(self, more: int = 100) -> None:
        """Wait until `more` further charges have been acknowledged."""
        with self._moved:
            until = self.charged + more
            assert self._moved.wait_for(lambda: self.charged >= until or self._failures, timeout=60)

    def end(self) -> int:
        """Stop, and return the number of acknowledged charges."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures
        return self.charged


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
def test_a_server_that_ends_in_mid_traffic(how: signal.Signals, own_server: Starter, opened: Opener) -> None:
    """It is killed, or stopped at once or in order, and started again at the same address: with production settings,
    each acknowledged charge is recorded once.
    """
    server = own_server()
    store = opened(server.url(), timeout=1.0)
    traffic = Traffic(store)
    for _ in range(2):
        traffic.flows()
        server.stop(how)
        server.start()
    traffic.flows()
    charged = traffic.end()
    assert calls_of(store) == charged
    assert account_of(store).held == 0
    assert traffic.unanswered


def test_a_crash_loses_no_charge_that_was_acknowledged(own_server: Starter, opened: Opener, look: Look) -> None:
    """A Settle is on the disk when it is answered. The WAL writer, which would write a little later, is delayed."""
    server = own_server("wal_writer_delay=10s", "checkpoint_timeout=1h")
    url = server.url()
    store = opened(url, timeout=5.0)
    commands = [charge_of(f"h{number}") for number in range(5)]
    store.execute(hold_of("gone"))
    assert store.execute_all(commands) == [Settled(command.hold) for command in commands]
    assert store.execute(Release("released", "p")) == Released("released")
    server.stop(signal.SIGKILL)
    server.start()
    assert calls_of(store) == 5
    schema = url.partition("schema=")[2]
    marks = {row[0] for row in look(url, f"SELECT id FROM {schema}.holds")}
    assert marks >= {"released", *(command.hold for command in commands)}
    # A Reserve does not wait for the disk: if it is lost, the call's charge still counts.
    store.execute(hold_of("after"))
    server.stop(signal.SIGKILL)
    server.start()
    assert calls_of(store) == 5


def test_idle_connections_that_a_restart_has_broken(own_server: Starter, opened: Opener) -> None:
    """They are noticed on use, and replaced silently."""
    server = own_server("fsync=off")
    store = opened(server.url())
    store.execute(charge_of("before"))
    server.stop()
    server.start()
    assert store.execute(charge_of("after")) == Settled("after")
    assert calls_of(store) == 2


@pytest.mark.parametrize("answers", [1, 2])
def test_answers_that_are_lost(answers: int, opened: Opener) -> None:
    """The command was applied, and its repetition changes nothing: the store repeats it once, then the caller does."""
    server = shared()
    proxy = PostgresProxy(str(server.folder))
    store = opened(server.url(host=proxy.folder, prepare="no"), timeout=10.0)
    commands = [(hold_of("h"), Granted("h", Amounts(10))), (charge_of("h"), Settled("h"))]
    for command, reply in commands:
        proxy.lose_answers(answers)
        if answers == 2:
            with pytest.raises(BudgetStoreUnavailable, match="try again"):
                store.execute(command)
        assert store.execute(command) == reply
    assert proxy.lost == 2 * answers
    assert calls_of(store) == 1
    assert (account_of(store).spent, account_of(store).held) == (10, 0)
    proxy.close()


def test_a_server_that_stalls(own_server: Starter, opened: Opener) -> None:
    """Every wait ends with the time-out: for an answer, a connection, or a place among the connections."""
    server = own_server("fsync=off")
    url = server.url(pool_size=2)
    store = opened(url, timeout=10.0)
    store.execute(charge_of("before"))
    processes = server.processes()
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        for wait in (
            lambda: store.execute(charge_of("stalled"), timeout=0.2),
            lambda: store.execute(charge_of("not connected"), timeout=0.2),
            lambda: open_store(url, timeout=0.2),
        ):
            begun = time.monotonic()
            with pytest.raises(BudgetStoreUnavailable, match="no answer within 0.2 s"):
                wait()
            assert time.monotonic() - begun < 0.2 + 0.3
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert store.execute(charge_of("stalled")) == Settled("stalled")
    assert calls_of(store) == 2


def test_more_threads_than_connections(opened: Opener, url: str, look: Look) -> None:
    """The pool is bounded: a thread without a place in time gets an error, and no more connections are opened."""
    store = opened(f"{url}&pool_size=2&application_name=bounded", timeout=30.0)
    threads = [threading.Thread(target=store.execute, args=(charge_of(f"h{number}"),)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls_of(store) == 40
    [(connections,)] = look(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'")
    assert 1 <= connections <= 2


def test_an_address_where_nobody_answers(tmp_path: object) -> None:
    """Opening raises an error at once."""
    begun = time.monotonic()
    with pytest.raises(BudgetStoreUnavailable, match="try again"):
        open_store(f"postgresql://nobody:secret@/db?host={tmp_path}", timeout=10.0)
    assert time.monotonic() - begun < 5


def test_the_second_host_where_the_first_is_away(tmp_path: object, opened: Opener) -> None:
    server = shared()
    store = opened(server.url(host=f"{tmp_path},{server.folder}"))
    assert store.execute(charge_of("h")) == Settled("h")


def test_a_read_only_server(own_server: Starter, opened: Opener, look: Look) -> None:
    """After a failover, the old primary may be a standby. That is temporary, so the error is Unavailable."""
    server = own_server("fsync=off")
    url = server.url()
    store = opened(url)
    store.execute(charge_of("h"))
    look(url, "ALTER SYSTEM SET default_transaction_read_only = on")
    look(url, "SELECT pg_reload_conf()")
    server.stop()
    server.start()
    with pytest.raises(BudgetStoreUnavailable, match="read-only"):
        store.execute(charge_of("other"))


def test_a_server_without_a_free_connection(own_server: Starter, opened: Opener) -> None:
    server = own_server("fsync=off", "max_connections=3", "superuser_reserved_connections=0", "max_wal_senders=0")
    url = server.url()
    stores = [opened(url) for _ in range(4)]
    deadline = time.monotonic() + 30
    for store in stores[:3]:
        while True:
            try:
                store.execute(charge_of("h"))
                break
            except BudgetStoreUnavailable:
                # The server frees a closed connection a moment later.
                assert time.monotonic() < deadline
    with pytest.raises(BudgetStoreUnavailable, match="too many clients"):
        stores[3].execute(charge_of("h"))
    stores[0].close()


def test_isolation_other_than_read_committed(opened: Opener, url: str) -> None:
    """The rules depend on what a statement sees after waiting for a lock."""
    strict = f"{url}&options=-c%20default_transaction_isolation%3Dserializable"
    with pytest.raises(BudgetStoreError, match="READ COMMITTED"):
        opened(strict).execute(charge_of("h"))


def test_text_and_numbers_that_cannot_be_kept(opened: Opener, url: str) -> None:
    """They are the caller's error and change nothing; in a batch they do not affect the others."""
    store = opened(url)
    for bad in (charge_of("a\0b"), charge_of("half \ud83d"), replace(charge_of("h"), at=-(2**100))):
        with pytest.raises(BudgetInputError, match="cannot be stored"):
            store.execute(bad)
        outcomes = store.execute_all([charge_of("good"), bad, charge_of("better")])
        assert outcomes[0] == Settled("good") and outcomes[2] == Settled("better")
        assert isinstance(outcomes[1], BudgetInputError)
    assert calls_of(store) == 2


def test_a_charge_that_cannot_be_stored_keeps_none_of_the_others_back(opened: Opener, url: str) -> None:
    """Also among charges to slices, which one transaction applies."""
    store = opened(url)
    store.execute(hold_of("slice", 500))
    charges = [replace(charge_of(f"h{number}"), parent="slice") for number in range(9)]
    charges[4] = replace(charges[4], hold="\ud800")
    outcomes = store.execute_all(charges)
    assert isinstance(outcomes[4], BudgetInputError)
    assert [each for each in outcomes if isinstance(each, Settled)] == [Settled(f"h{n}") for n in range(9) if n != 4]
    assert account_of(store).spent == 80


def test_ids_of_any_length(opened: Opener, url: str) -> None:
    """A provider chooses the ids of its responses; an index accepts no row of more than a third of a page."""
    store = opened(url)
    long = "".join(chr(0x10000 + 7919 * number % 0xFFFF) for number in range(3000))
    first = replace(charge_of(long), aliases=(long,), unless=long)
    assert store.execute(hold_of(long)) == Granted(long, Amounts(10))
    assert store.execute(first) == Settled(long)
    assert store.execute(replace(first, hold="other")).hold == "other"  # type: ignore[union-attr]
    assert calls_of(store) == 1
