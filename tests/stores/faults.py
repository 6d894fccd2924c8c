"""Faults that every networked engine must survive, with any server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import account_of, calls_of, charge_of, hold_of


class Killable(Protocol):
    """A server that can be killed and started again."""

    def kill(self) -> None:
        """End it without any chance to react."""

    def start(self) -> None:
        """Start it on the same data and the same port."""


def survives_kills_among_traffic(server: Killable, store: Store) -> None:
    """Nothing acknowledged is lost, nothing counts twice: each charge is sent until it is acknowledged, and then again."""
    done, acknowledged = threading.Event(), [0] * 4

    def work(thread: int) -> None:
        while not done.is_set():
            charge = charge_of(f"{thread}-{acknowledged[thread]}")
            while True:
                try:
                    store.execute(charge)
                    break
                except BudgetStoreUnavailable:
                    time.sleep(0.01)
            acknowledged[thread] += 1

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        before = sum(acknowledged)
        while sum(acknowledged) < before + 50:
            time.sleep(0.001)
        server.kill()
        server.start()
    done.set()
    for thread in threads:
        thread.join()
    for thread in range(4):
        store.execute(charge_of(f"{thread}-0"))
    assert calls_of(store) == sum(acknowledged)
    assert account_of(store).spent == 10 * sum(acknowledged)


def survives_interrupts(store: Store, room: str, last: int = 300, step: int = 1) -> None:
    """Send a KeyboardInterrupt at each moment of a command that is in the package's folder `room`: the next command
    finds a connection, and no answer to another command on it. The store has one connection.
    """
    moments = 0
    for moment in range(1, last, step):
        seen = 0

        def interrupt(frame: Any, event: str, _: object, moment: int = moment) -> None:
            nonlocal seen
            if event in ("call", "c_return") and room in frame.f_code.co_filename:
                seen += 1
                if seen == moment:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            store.execute(hold_of("h"))
            break
        except KeyboardInterrupt:
            moments += 1
        finally:
            sys.setprofile(None)
        store.execute(hold_of("h"))
    assert moments > 20
    assert account_of(store).held == 10


def answers_in_time_though_names_do_not(
    monkeypatch: pytest.MonkeyPatch, open_it: Callable[[], object], said: str
) -> None:
    """Opening does not wait for a resolver that cannot be interrupted."""
    import socket

    go_on = threading.Event()

    def resolve(*_: Any) -> Any:
        go_on.wait()
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    with pytest.raises(BudgetStoreUnavailable, match=said):
        open_it()
    assert time.monotonic() - began < 1.0
    go_on.set()
