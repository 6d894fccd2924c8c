"""Forks, finalizers and the end of the interpreter."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_budget_plugin.core.commands import Reserve, Settle
from litellm_budget_plugin.hooks import call_binding
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.stores.protocol import one_by_one
from tests.hooks.desk import INPUT, WORTH, Desk
from tests.upstream import Upstream


def test_a_child_changes_nothing_of_its_parent(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="10")
    # Only this list refers to the stream, so that the child can really drop it.
    streams = [litellm.completion(**desk.arguments("alice", stream=True))]
    next(streams[0])
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_inherit, args=(streams, desk, results))
    child.start()
    assert results.get() == "done"
    child.join()
    assert (desk.spent("alice"), desk.held("alice")) == (0, WORTH)
    for _ in streams[0]:
        pass
    assert desk.calm("alice") == WORTH


def _inherit(streams: list[Any], desk: Desk, results: Any) -> None:
    """Have a forked child drop the inherited stream, collect, flush, and close."""
    call = call_binding.call_of(streams[0].logging_obj)
    assert call is not None
    streams.clear()
    gc.collect()
    # The threads of the parent are gone, but objects that they held may keep the stream. So this does what its
    # finalizer does.
    call.dropped()
    desk.callback.flush()
    desk.callback.close()
    results.put("done")
    os._exit(0)


def test_collection_in_the_middle_of_every_store_command_does_not_deadlock(
    open_desk: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped streams are collected inside the store's lock, again and again. Their finalizers must not take a lock."""
    from litellm_budget_plugin.stores.sqlite import store as sqlite_store

    desk = open_desk(default_limit="10")
    original = sqlite_store.apply
    collected = []

    def collecting(book: Any, command: Any, now: int) -> Any:
        if isinstance(command, (Reserve, Settle)):
            collected.append(gc.collect())
        return original(book, command, now)

    monkeypatch.setattr(sqlite_store, "apply", collecting)
    for _ in range(10):
        stream = litellm.completion(**desk.arguments("alice", model=INPUT, stream=True))
        next(stream)
        del stream
    desk.calm("alice")
    assert len(collected) >= 20
    assert desk.usage("alice").calls == 10


def test_a_finalizer_only_appends(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    """The finalizer settles nothing itself, whichever thread collects."""
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    jobs: list[Callable[[], None]] = []
    monkeypatch.setattr(StoreWorker, "submit", lambda self, job: jobs.append(job))
    del stream
    for _ in range(500):
        gc.collect()
        if jobs:
            break
        desk.callback.flush()
    assert len(jobs) == 1
    assert desk.held("alice") == WORTH
    jobs[0]()
    assert desk.held("alice") == 0


_EXITS_IN_THE_MIDDLE = textwrap.dedent(
    """
    import sys
    import litellm
    from litellm_budget_plugin import BudgetCallback
    from tests.hooks.desk import CHAT, register_prices
    register_prices()
    litellm.callbacks = [BudgetCallback(store_url=sys.argv[2], default_limit=10)]
    stream = litellm.completion(model=CHAT, messages=[{"role": "user", "content": "x"}], max_tokens=1000, user="alice",
                                api_base=sys.argv[1], api_key="sk", stream=True)
    next(stream)
    """
)


def test_a_program_that_ends_in_the_middle_of_a_stream_leaves_no_hold(desk: Desk) -> None:
    arguments = [desk.url, desk.callback.settings.url]
    subprocess.run([sys.executable, "-c", _EXITS_IN_THE_MIDDLE, *arguments], check=True)
    assert desk.held("alice") == 0
    assert 0 < desk.spent("alice") < WORTH


def test_live_holds_are_renewed_and_a_dead_process_s_come_back(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="10")
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    sent: list[Any] = []
    store = ledger.worker.client.store

    class Watched:
        remote = False

        def execute_all(self, commands: Any, timeout: float | None = None) -> Any:
            return one_by_one(self, commands, timeout)

        def execute(self, command: Any, timeout: float | None = None) -> Any:
            sent.append(command)
            return store.execute(command, timeout)

        def sync(self) -> None:
            store.sync()

        def close(self) -> None:
            store.close()

    ledger.worker.client.store = Watched()
    ledger.worker.live.renewed_at -= ledger.hold_ttl
    ledger.worker._upkeep()
    ledger.worker.client.store = store
    renewals = [command for command in sent if type(command).__name__ == "Renew"]
    assert [len(renewal.holds) for renewal in renewals] == [1]
    list(stream)
    assert desk.calm("alice") == WORTH
