"""Parent and children of a fork: they share a SQLite ledger, have separate copies of a memory ledger, and never wait forever for a lock."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.stores import fork_safe_lock
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of
from tests.stores.processes import Child

Opener = Callable[..., Store]


def test_a_childs_charges_outlive_its_parents_connection(database: Path, opened: Opener) -> None:
    """A child that inherits an open connection believes in locks that only its parent has: when the parent closes the
    file, the write-ahead log is deleted under the child, and the child's later charges are lost.
    """
    url = f"sqlite:///{database}"
    store = opened(url)
    store.execute(charge_of("parent"))

    def charge_twice(parent: Child) -> str:
        store.execute(charge_of("child 1"))
        parent.tell()
        parent.wait()
        store.execute(charge_of("child 2"))
        return "charged"

    child = Child(charge_twice)
    child.wait()
    store.close()
    child.tell()
    assert child.result() == "charged"
    assert calls_of(opened(url)) == 3


def test_the_parent_goes_on_after_a_fork(database: Path, opened: Opener) -> None:
    """Its connection was closed for the fork. It opens another one, and both processes see each other's charges."""
    store = opened(f"sqlite:///{database}")
    store.execute(charge_of("before"))
    child = Child(lambda parent: (store.execute(charge_of("child")), calls_of(store))[1])
    store.execute(charge_of("after"))
    assert child.result() in ("2", "3")
    assert calls_of(store) == 3


def test_a_child_of_memory_has_a_ledger_of_its_own(opened: Opener) -> None:
    """It begins with a copy of its parent's ledger."""
    store = opened("memory://")
    store.execute(charge_of("before"))
    child = Child(lambda parent: (store.execute(charge_of("child")), calls_of(store))[1])
    assert child.result() == "2"
    assert calls_of(store) == 1


def test_forks_among_busy_threads(engine_url: str, opened: Opener) -> None:
    """Every child can charge at once, whatever its parent's threads were doing, and it starts with complete commands."""
    store = opened(engine_url, timeout=30.0)
    done, counts = threading.Event(), [0] * 4

    def work(thread: int) -> None:
        while not done.is_set():
            name = f"{thread}-{counts[thread]}"
            store.execute(hold_of(name))
            store.execute(charge_of(name, usd=0))
            counts[thread] += 1

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()

    def charge(name: str, parent: Child) -> str:
        store.execute(charge_of(name, usd=0))
        state = account_of(store)
        return "whole" if state.held % 10 == 0 and state.held <= 40 else f"{state}"

    results = [Child(partial(charge, f"child {number}")).result() for number in range(12)]
    done.set()
    for thread in threads:
        thread.join()
    assert results == ["whole"] * 12
    children = 0 if engine_url.startswith("memory") else 12
    assert calls_of(store) == sum(counts) + children
    assert account_of(store).held == 0


def test_a_fork_in_the_middle_of_a_command(local_url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork does not wait for a command that does not end. A child with SQLite refuses to use the inherited connection."""
    monkeypatch.setattr(fork_safe_lock, "FORK_WAIT", 0.01)
    store: Any = opened(local_url)
    store.execute(charge_of("before"))
    inside, go_on, now = threading.Event(), threading.Event(), store._now

    def stuck(command: object) -> int:
        inside.set()
        go_on.wait()
        return int(now(command))

    store._now = stuck
    thread = threading.Thread(target=store.execute, args=(charge_of("stuck"),))
    thread.start()
    inside.wait()

    def charge(parent: Child) -> int:
        store._now = now
        store.execute(charge_of("child"))
        return calls_of(store)

    said = Child(charge).result()
    go_on.set()
    thread.join()
    store._now = now
    if local_url.startswith("sqlite"):
        assert said.startswith("BudgetStoreError: ") and "forked" in said
    else:
        assert said == "2"
    assert calls_of(store) == 2


def test_a_fork_that_python_does_not_see(database: Path, opened: Opener) -> None:
    """uWSGI forks in C. A child that inherited an open connection raises an error; a child of a parent that only opened
    the store can work.
    """
    store = opened(f"sqlite:///{database}")

    def charge(parent: Child) -> str:
        store.execute(charge_of("child"))
        return "charged"

    fork = ctypes.PyDLL(None).fork
    assert Child(charge, fork).result() == "charged"
    store.execute(charge_of("parent"))
    said = Child(charge, fork).result()
    assert said.startswith(f"BudgetStoreError: {database}") and "lazy-apps" in said
    assert calls_of(store) == 2
