"""Ctrl-C anywhere in a command: it is applied completely or not at all, and the next command works."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import FrameType
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Command, PutBudget, Settled
from litellm_budget_plugin.stores.protocol import Store
from tests.stores.desk import account_of, charge_of, hold_of
from tests.stores.engines import LOCAL

Opener = Callable[..., Store]


def interrupted_at(moment: int, store: Store, command: Command) -> bool:
    """Execute a command and interrupt it at its n-th moment. Returns False if it ended before.

    Moments are the times when Python checks for signals: when a function begins and when a call has returned.
    """
    seen = 0

    def interrupt(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal seen
        if event in ("call", "c_return") and "litellm_budget_plugin" in frame.f_code.co_filename:
            seen += 1
            if seen == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        store.execute(command)
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def test_an_interrupt_at_every_moment_of_a_hold_and_a_charge(engine_url: str, opened: Opener) -> None:
    """Each repeated command has its usual effect, and nothing waits for a lock that an interrupt has left taken."""
    patience = 0.0 if engine_url.startswith(LOCAL) else 30.0
    store, elsewhere = opened(engine_url, timeout=patience), ThreadPoolExecutor(1)
    store.execute(PutBudget("c", "p", Subject("user", "alice"), limit=2**50))
    charges = 0
    for moment in count(1):
        hold, charge = hold_of(f"h{moment}"), charge_of(f"h{moment}", usd=7)
        interrupted = interrupted_at(moment, store, hold)
        # In another thread: the lock would admit this thread again even if it was not released.
        assert elsewhere.submit(account_of, store).result().held in (0, 10)
        store.execute(hold)
        assert account_of(store).held == 10
        interrupted |= interrupted_at(moment, store, charge)
        state = elsewhere.submit(account_of, store).result()
        assert (state.spent, state.held) in ((7 * charges, 10), (7 * charges + 7, 0))
        assert store.execute(charge) == Settled(charge.hold)
        charges += 1
        state = account_of(store)
        assert (state.spent, state.held) == (7 * charges, 0)
        if not interrupted:
            break
    assert charges > 50
    elsewhere.shutdown()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError, SystemExit])
def test_an_exception_inside_the_rules(
    local_url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """The error reaches the caller unchanged, and no transaction stays open."""
    store: Any = opened(local_url, timeout=0.0)

    def fail(command: Command) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "_now", fail)
        with pytest.raises(error):
            store.execute(charge_of("h"))
    if local_url.startswith("sqlite"):
        other = sqlite3.connect(local_url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.close()
    assert store.execute(charge_of("h")) == Settled("h")
    assert account_of(store).spent == 10
