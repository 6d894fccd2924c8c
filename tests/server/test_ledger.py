"""The ledger of a worker: the keys that its store knows, and the limits that it shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Command, Reply, Sweep
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.server import ledger as ledgers
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.memory import MemoryStore
from tests.server.dashboard.desk import USD
from tests.stores.desk import LIMIT, hold_of


@asynccontextmanager
async def served(store: MemoryStore) -> AsyncIterator[ServedLedger]:
    ledger = ServedLedger(ServerOptions("memory://"))
    ledger.store = store
    try:
        yield ledger
    finally:
        await ledger.end()


def run(scenario: Any) -> None:
    asyncio.run(scenario())


class Away(MemoryStore):
    """Does not answer while `away`; counts its queries."""

    away, questions = True, 0

    def execute(self, command: Command, timeout: float | None = None) -> Reply:
        self.questions += 1
        if self.away:
            raise BudgetStoreUnavailable("away")
        return super().execute(command, timeout)


def test_who_waits_for_the_keys_waits_for_one_reading() -> None:
    """The reading in progress when they came may be too old. All of them share the next one, even if it fails."""

    async def scenario() -> None:
        async with served(store := Away()) as ledger:
            failed = await asyncio.gather(*(ledger.refresh() for _ in range(10)), return_exceptions=True)
            assert [str(each) for each in failed] == ["away"] * 10
            assert store.questions <= 2
            store.away = False
            await ledger.refresh()
            assert ledger.ring.known and not ledger.ring.keyed

    run(scenario)


def test_one_projects_rows_keep_no_other_from_being_swept() -> None:
    class Odd(MemoryStore):
        swept: list[str] = []

        def projects(self) -> list[str]:
            return ["a", "b"]

        def execute(self, command: Command, timeout: float | None = None) -> Reply:
            if isinstance(command, Sweep):
                if command.project == "a":
                    raise ValueError("rows that no rule knows")
                self.swept.append(command.project)
            return super().execute(command, timeout)

    async def scenario() -> None:
        async with served(store := Odd()) as ledger:
            ledger._sweep()
            assert store.swept == ["b"]

    run(scenario)


def test_the_upkeep_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(ledgers, "_SYNC_SECONDS", 0.001)
        monkeypatch.setattr(ledgers, "_SWEEP_SECONDS", 0.0)
        seen: list[int] = []

        def sweep() -> None:
            seen.append(1)
            raise ValueError("a fault of ours")

        async with served(MemoryStore()) as ledger:
            monkeypatch.setattr(ledger, "_sweep", sweep)
            await ledger.begin()
            while len(seen) < 2:
                await asyncio.sleep(0.001)

    run(scenario)


def test_a_sweep_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile charges are synced and revoked keys are found. A sync that fails is tried again."""

    class Counting(MemoryStore):
        syncs = 0

        def sync(self) -> None:
            self.syncs += 1
            if self.syncs == 1:
                raise BudgetStoreUnavailable("away")

    async def scenario() -> None:
        monkeypatch.setattr(ledgers, "_SYNC_SECONDS", 0.001)
        monkeypatch.setattr(ledgers, "REFRESH_SECONDS", 0.001)
        monkeypatch.setattr(ledgers, "_SWEEP_SECONDS", 0.0)
        sweeping, swept = threading.Event(), threading.Event()

        def sweep() -> None:
            sweeping.set()
            swept.wait()

        async with served(store := Counting()) as ledger:
            monkeypatch.setattr(ledger, "_sweep", sweep)
            await ledger.begin()
            while not sweeping.is_set():
                await asyncio.sleep(0.001)
            try:
                syncs, refreshed = store.syncs, ledger._refreshed_at
                while store.syncs < syncs + 3 or ledger._refreshed_at == refreshed:
                    await asyncio.sleep(0.001)
            finally:
                swept.set()

    run(scenario)


def test_a_reading_of_the_keys_that_does_not_end_serves_nobody() -> None:
    """The reading is cancelled or fails: those that waited for it must not be told that it succeeded."""

    class Faulty(MemoryStore):
        def execute(self, command: Command, timeout: float | None = None) -> Reply:
            raise ValueError("a fault of ours")

    async def scenario() -> None:
        async with served(Faulty()) as ledger:
            told = await asyncio.gather(*(ledger.refresh() for _ in range(5)), return_exceptions=True)
            assert all(isinstance(each, (ValueError, BudgetStoreUnavailable)) for each in told)
            assert not ledger.ring.known

    run(scenario)


def test_the_defaults_are_those_that_commands_bring(tmp_path: Path) -> None:
    """The defaults of single subjects are the server's own: a client's default for a subject is only for that client's call."""
    file = tmp_path / "budgets.toml"
    file.write_text('[user]\nlimits = ["$0.000000007"]\n[user.bob]\nlimits = ["$5"]\n')

    async def scenario() -> None:
        mine = (Default("user", "none", 7),)
        alice, bob = Subject("user", "alice"), Subject("user", "bob")
        bobs = Default("user", "none", 5 * USD, subject="bob")
        ledger = ServedLedger(ServerOptions("memory://", settings=BudgetSettings(file=str(file))))
        assert (ledger.defaults("p"), ledger.defaults("p", alice), ledger.defaults("p", bob)) == (
            mine,
            mine,
            (*mine, bobs),
        )
        brought = (*LIMIT, Default("user", "none", 3, subject="alice"))
        await ledger.execute(replace(hold_of("h"), defaults=brought))
        assert (ledger.defaults("p", alice), ledger.defaults("q")) == (LIMIT, mine)
        assert ledger.defaults("p", bob) == (*LIMIT, bobs)
        with pytest.raises(BudgetInputError):
            await ledger.execute(replace(hold_of("h2"), project="q", defaults=(Default("user", "none", -5),)))
        assert ledger.defaults("q") == mine
        await ledger.end()

    run(scenario)
