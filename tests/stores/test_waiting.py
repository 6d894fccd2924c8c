"""Locks that are not released: the store answers within the time-out, and works as before afterwards."""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from litellm_budget_plugin.core.commands import Settled
from litellm_budget_plugin.core.dict_row_store import DictRowStore
from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import open_store
from litellm_budget_plugin.stores.sqlite.book import SqliteBook
from tests.stores.desk import account_of, calls_of, charge_of, hold_of

Opener = Callable[..., Store]


def locked(path: Path) -> sqlite3.Connection:
    """Another program's connection, which keeps all others out."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_file_that_another_program_keeps_locked(database: Path, opened: Opener) -> None:
    """Reads still work; a write waits for the time-out, no longer, and can be sent again."""
    store = opened(f"sqlite:///{database}", timeout=30.0)
    store.execute(charge_of("before"))
    other = locked(database)
    begun = time.monotonic()
    with pytest.raises(BudgetStoreUnavailable, match=f"{database}: other processes") as raised:
        store.execute(charge_of("h"), timeout=0.05)
    assert 0.05 <= time.monotonic() - begun < 10
    assert raised.value.status_code == 503
    assert calls_of(store) == 1
    other.execute("ROLLBACK")
    assert store.execute(charge_of("h")) == Settled("h")
    assert calls_of(store) == 2


def test_a_new_file_that_another_program_keeps_locked(database: Path) -> None:
    other = locked(database)
    with pytest.raises(BudgetStoreUnavailable, match=f"{database}: other processes"):
        open_store(f"sqlite:///{database}", timeout=0.05)
    other.close()
    open_store(f"sqlite:///{database}")


def test_a_store_without_patience_tries_once(database: Path, opened: Opener) -> None:
    store = opened(f"sqlite:///{database}")
    assert store.execute(charge_of("h"), timeout=0.0) == Settled("h")
    other = locked(database)
    with pytest.raises(BudgetStoreUnavailable):
        store.execute(charge_of("h2"), timeout=0.0)
    other.close()


def test_a_thread_that_stays_inside(local_url: str, opened: Opener) -> None:
    """The time-out also bounds the wait for this process's own lock."""
    store: Any = opened(local_url)
    inside, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        go_on.wait()

    thread = threading.Thread(target=store._guard.run, args=("test", 1.0, stay))
    thread.start()
    inside.wait()
    with pytest.raises(BudgetStoreUnavailable, match="other threads"):
        store.execute(charge_of("h"), timeout=0.01)
    go_on.set()
    thread.join()
    assert store.execute(charge_of("h")) == Settled("h")


class Cycle:
    """An object that only the garbage collector finds, with a finalizer."""

    def __init__(self, finalizer: Callable[[], None]) -> None:
        self.me, self.finalizer = self, finalizer

    def __del__(self) -> None:
        self.finalizer()


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have every search for a hold, in the middle of a command, collect garbage with this finalizer."""

    def arrange(finalizer: Callable[[], None]) -> None:
        for book in (DictRowStore, SqliteBook):
            look: Any = book.hold

            def collect(self: Any, project: str, hold: str, look: Any = look) -> Any:
                Cycle(finalizer)
                gc.collect()
                return look(self, project, hold)

            monkeypatch.setattr(book, "hold", collect)

    return arrange


def test_a_finalizer_in_the_middle_of_a_command(
    local_url: str, opened: Opener, collecting: Callable[[Callable[[], None]], None]
) -> None:
    """A finalizer that only appends to a queue disturbs nothing."""
    store, queue = opened(local_url), SimpleQueue[str]()
    collecting(lambda: queue.put("freed"))
    store.execute(hold_of("h"))
    store.execute(charge_of("h"))
    assert queue.qsize() >= 2
    assert (account_of(store).spent, account_of(store).held) == (10, 0)


def test_a_finalizer_that_asks_the_store(
    local_url: str, opened: Opener, collecting: Callable[[Callable[[], None]], None]
) -> None:
    """It is refused at once. It neither waits for its own thread's lock nor changes rows in the middle of a command."""
    store, refusals = opened(local_url, timeout=3600.0), list[str]()

    def ask() -> None:
        try:
            store.execute(charge_of("inner"))
        except BudgetStoreUnavailable as error:
            refusals.append(str(error))

    collecting(ask)
    store.execute(charge_of("h"))
    assert refusals and all("finalizer" in refusal for refusal in refusals)
    assert calls_of(store) == 1
