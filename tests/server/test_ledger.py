"""How a worker asks its store: at once where that is quick, on threads where it is not, and many together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import Command, Read, ReadUsage, Reply, Settled, Sweep
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.memory import MemoryStore
from litellm_budget_plugin.stores.protocol import Outcome
from tests.stores.desk import LIMIT, charge_of, hold_of


class Noting(MemoryStore):
    """Notes on which thread it was asked what; `busy` is raised by the next questions."""

    def __init__(self, remote: bool) -> None:
        super().__init__()
        self.remote = remote
        self.asked: list[tuple[bool, int]] = []
        self.busy: list[Exception] = []
        self.pause: threading.Event | None = None

    def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        main = threading.current_thread() is threading.main_thread()
        self.asked.append((main, len(commands)))
        if self.busy and main == (not self.remote):
            raise self.busy.pop()
        if self.pause is not None and not main:
            self.pause.wait()
        return super().execute_all(commands, timeout)


@asynccontextmanager
async def served(store: Noting) -> AsyncIterator[ServedLedger]:
    ledger = ServedLedger(ServerOptions("memory://"))
    ledger.store = store
    ledger._free = 1
    try:
        yield ledger
    finally:
        await ledger.end()


def run(scenario: Any) -> None:
    asyncio.run(scenario())


def test_short_commands_of_a_local_store_are_answered_at_once() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        async with served(store) as ledger:
            assert await ledger.execute(charge_of("h")) == Settled("h")
            await ledger.execute(Read("p", "user", "alice"))
            assert store.asked == [(True, 1)] * 2
            for command in (Read("p", "user"), ReadUsage("p", "user"), Sweep("p", 10**12, 10**12)):
                await ledger.execute(command)
            assert store.asked[2:] == [(False, 1)] * 3

    run(scenario)


def test_a_file_that_another_process_keeps_busy_is_waited_for_elsewhere() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        async with served(store) as ledger:
            store.busy = [BudgetStoreUnavailable("busy")]
            assert await ledger.execute(charge_of("h")) == Settled("h")
            assert store.asked == [(True, 1), (False, 1)]

    run(scenario)


def test_the_loop_does_not_wait_for_what_a_thread_does_with_the_store() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        store.pause = threading.Event()
        async with served(store) as ledger:
            slow = asyncio.create_task(ledger.execute(Read("p", "user")))
            await asyncio.sleep(0)
            quick = asyncio.create_task(ledger.execute(charge_of("h")))
            await asyncio.sleep(0)
            assert not quick.done()
            store.pause.set()
            assert await quick == Settled("h")
            await slow
            assert all(not main for main, _ in store.asked)

    run(scenario)


def test_what_arrives_meanwhile_goes_to_a_networked_store_together() -> None:
    """In its order, and one that cannot be accepted fails alone."""

    async def scenario() -> None:
        store = Noting(remote=True)
        store.pause = threading.Event()
        async with served(store) as ledger:
            tasks = [asyncio.create_task(ledger.execute(charge_of(f"h{number}"))) for number in range(100)]
            bad = asyncio.create_task(ledger.execute(charge_of("bad", usd=-1)))
            await asyncio.sleep(0)
            store.pause.set()
            replies: list[Reply] = await asyncio.gather(*tasks)
            assert replies == [Settled(f"h{number}") for number in range(100)]
            with pytest.raises(BudgetInputError, match="Settle.cost"):
                await bad
            assert [count for _, count in store.asked] == [1, 64, 36]

    run(scenario)


def test_a_store_that_fails_fails_all_who_wait_and_nobody_after_them() -> None:
    async def scenario() -> None:
        store = Noting(remote=True)
        async with served(store) as ledger:
            store.busy = [BudgetStoreUnavailable("away")]
            results = await asyncio.gather(
                *(ledger.execute(charge_of(f"h{number}")) for number in range(3)), return_exceptions=True
            )
            failed = [result for result in results if isinstance(result, BudgetStoreUnavailable)]
            assert len(failed) == 1 and results.count(failed[0]) == 1
            assert await ledger.execute(charge_of("h9")) == Settled("h9")
            assert ledger._free == 1 and ledger._elsewhere == 0

    run(scenario)


class Away(Noting):
    """Does not answer while `away`; counts how often it was asked."""

    away, questions = True, 0

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        self.questions += 1
        if self.away:
            raise BudgetStoreUnavailable("away")
        return super().execute(command, timeout)


def test_who_waits_for_the_keys_waits_for_one_reading() -> None:
    """However many wait: the one that was going on when they came may be too old, the next one is everybody's, also if it fails."""

    async def scenario() -> None:
        async with served(store := Away(remote=False)) as ledger:
            failed = await asyncio.gather(*(ledger.refresh() for _ in range(10)), return_exceptions=True)
            assert [str(each) for each in failed] == ["away"] * 10
            assert store.questions <= 2
            store.away = False
            await ledger.refresh()
            assert ledger.ring.known and not ledger.ring.keyed

    run(scenario)


def test_somebody_who_goes_away_harms_nobody() -> None:
    async def scenario() -> None:
        store = Noting(remote=True)
        store.pause = threading.Event()
        async with served(store) as ledger:
            gone = asyncio.create_task(ledger.execute(charge_of("gone")))
            stays = asyncio.create_task(ledger.execute(charge_of("stays")))
            await asyncio.sleep(0)
            gone.cancel()
            store.pause.set()
            assert await stays == Settled("stays")

    run(scenario)


def test_the_defaults_are_those_that_commands_bring(tmp_path: Path) -> None:
    async def scenario() -> None:
        mine = (Default("user", "none", 7),)
        ledger = ServedLedger(ServerOptions("memory://", defaults=mine))
        assert ledger.defaults("p") == mine
        await ledger.execute(hold_of("h"))
        assert (ledger.defaults("p"), ledger.defaults("q")) == (LIMIT, mine)
        await ledger.end()

    run(scenario)
