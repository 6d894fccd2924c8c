"""The access of a worker to its store: quick commands on the event loop, others on threads, concurrent ones in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import (
    Command,
    DropBudget,
    PutBudget,
    Read,
    ReadUsage,
    Renew,
    Reset,
    Settle,
    Settled,
    Sweep,
)
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.server.asking import _BATCHES, Asker
from litellm_budget_plugin.stores.memory import MemoryStore
from litellm_budget_plugin.stores.protocol import Outcome
from tests.stores.desk import charge_of, hold_of


class Noting(MemoryStore):
    """Records the thread and the number of commands of each query. The next queries raise the exceptions in `busy`."""

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


@contextmanager
def asking(store: Noting) -> Iterator[Asker]:
    asker = Asker(store)
    try:
        yield asker
    finally:
        asker.close()


def run(scenario: Any) -> None:
    asyncio.run(scenario())


MANY = tuple(f"x{number}" for number in range(65))
EVERYBODY: list[Command] = [Read("p", "user"), ReadUsage("p", "user"), Sweep("p", 10**12, 10**12)]
LONG: list[Command] = [
    # A subject may have any number of accounts, models and days.
    Read("p", "user", "alice"),
    ReadUsage("p", "user", "alice"),
    PutBudget("c", "p", Subject("user", "alice"), limit=1),
    DropBudget("d", "p", Subject("user", "alice")),
    Reset("r", "p", Subject("user", "alice")),
    Renew(MANY, "p", 10),
    replace(charge_of("g"), subjects=tuple(Subject("user", name) for name in MANY)),
    replace(charge_of("g"), models=MANY),
    replace(charge_of("g"), aliases=MANY),
    replace(
        hold_of("k"),
        subjects=tuple(Subject("user", name) for name in MANY[:8]),
        defaults=tuple(Default("user", "none", 1, name) for name in MANY[:8]),
    ),
]


def test_short_commands_of_a_local_store_are_answered_at_once() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        with asking(store) as asker:
            assert await asker.ask(charge_of("h")) == Settled("h")
            await asker.ask(Renew(("h",), "p", 10))
            assert store.asked == [(True, 1)] * 2
            for command in EVERYBODY:
                await asker.ask(command)
            assert store.asked[2:] == [(False, 1)] * len(EVERYBODY)
            await asker.ask_all([charge_of("h"), Read("p", "user")])
            assert [thread.name for thread in threading.enumerate() if thread.name.startswith("budget-server")] == []

    run(scenario)


def test_what_may_take_longer_than_a_call_is_not_answered_on_the_loop() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        with asking(store) as asker:
            for command in LONG:
                await asker.ask(command)
            assert store.asked == [(False, 1)] * len(LONG)

    run(scenario)


def test_a_file_that_another_process_keeps_busy_is_waited_for_elsewhere() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        with asking(store) as asker:
            store.busy = [BudgetStoreUnavailable("busy")]
            assert await asker.ask(charge_of("h")) == Settled("h")
            assert store.asked == [(True, 1), (False, 1)]

    run(scenario)


def test_the_loop_does_not_wait_for_what_a_thread_does_with_the_store() -> None:
    async def scenario() -> None:
        store = Noting(remote=False)
        store.pause = threading.Event()
        with asking(store) as asker:
            slow = asyncio.create_task(asker.ask(Read("p", "user")))
            await asyncio.sleep(0)
            quick = asyncio.create_task(asker.ask(charge_of("h")))
            await asyncio.sleep(0)
            assert not quick.done()
            store.pause.set()
            assert await quick == Settled("h")
            await slow
            assert all(not main for main, _ in store.asked)

    run(scenario)


def test_what_is_asked_in_one_moment_goes_to_the_store_together() -> None:
    """They run on the loop, and a command that cannot be accepted fails alone."""

    async def scenario() -> None:
        store = Noting(remote=False)
        with asking(store) as asker:
            commands = [charge_of(f"h{number}", usd=-1 if number == 7 else 1) for number in range(20)]
            outcomes = await asyncio.gather(*map(asker.ask, commands))
            assert isinstance(outcomes.pop(7), BudgetInputError)
            assert outcomes == [Settled(f"h{number}") for number in range(20) if number != 7]
            assert store.asked == [(True, 20)]

    run(scenario)


def test_after_a_thread_the_loop_serves_again() -> None:
    """The loop also serves commands that waited for the thread."""

    async def scenario() -> None:
        store = Noting(remote=False)
        store.pause = threading.Event()
        with asking(store) as asker:
            slow = asyncio.create_task(asker.ask(Read("p", "user")))
            first = asyncio.create_task(asker.ask(charge_of("h0")))
            while len(store.asked) < 2:
                await asyncio.sleep(0)
            others = [asyncio.create_task(asker.ask(charge_of(f"h{number}"))) for number in range(1, 4)]
            await asyncio.sleep(0)
            store.pause.set()
            await asyncio.gather(slow, first, *others)
            await asker.ask(charge_of("h4"))
            assert store.asked[-1] == (True, 1)

    run(scenario)


@pytest.mark.parametrize("error", [BudgetStoreError("its rows are damaged"), ValueError("a fault of ours: damaged")])
@pytest.mark.parametrize("remote", [False, True])
def test_what_only_one_commands_rows_do_to_the_store_fails_that_one_alone(remote: bool, error: Exception) -> None:
    class Broken(Noting):
        def execute_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
            if any(command.hold == "h1" for command in commands if isinstance(command, Settle)):
                raise error
            return super().execute_all(commands, timeout)

    async def scenario() -> None:
        with asking(Broken(remote)) as asker:
            commands = [charge_of(f"h{number}") for number in range(3)]
            outcomes = await asyncio.gather(*map(asker.ask, commands), return_exceptions=True)
            assert isinstance(outcomes[1], type(error)) and "damaged" in str(outcomes[1])
            assert [outcomes[0], outcomes[2]] == [Settled("h0"), Settled("h2")]

    run(scenario)


@pytest.mark.parametrize("remote", [False, True])
def test_whatever_goes_wrong_is_told_to_whoever_asked(remote: bool) -> None:
    async def scenario() -> None:
        store = Noting(remote)
        with asking(store) as asker:
            store.busy = [RuntimeError("a fault of ours") for _ in range(3)]
            told = await asyncio.gather(asker.ask(charge_of("h0")), asker.ask(charge_of("h1")), return_exceptions=True)
            assert [str(each) for each in told] == ["a fault of ours"] * 2
            assert await asker.ask(charge_of("h0")) == Settled("h0")

    run(scenario)


def test_what_arrives_meanwhile_goes_to_a_networked_store_together() -> None:
    """They run in order, and a command that cannot be accepted fails alone."""

    async def scenario() -> None:
        store = Noting(remote=True)
        store.pause = threading.Event()
        with asking(store) as asker:
            tasks = [asyncio.create_task(asker.ask(charge_of(f"h{number}"))) for number in range(100)]
            bad = asyncio.create_task(asker.ask(charge_of("bad", usd=-1)))
            await asyncio.sleep(0)
            store.pause.set()
            replies = await asyncio.gather(*tasks)
            assert replies == [Settled(f"h{number}") for number in range(100)]
            assert "Settle.cost" in str(await bad)
            assert sorted(count for _, count in store.asked) == [37, 64]

    run(scenario)


def test_a_store_that_fails_fails_all_who_wait_and_nobody_after_them() -> None:
    async def scenario() -> None:
        store = Noting(remote=True)
        with asking(store) as asker:
            store.busy = [BudgetStoreUnavailable("away")]
            results = await asyncio.gather(
                *(asker.ask(charge_of(f"h{number}")) for number in range(3)), return_exceptions=True
            )
            assert [str(result) for result in results] == ["away"] * 3
            assert await asker.ask(charge_of("h9")) == Settled("h9")
            assert asker._free == _BATCHES and asker._elsewhere == 0

    run(scenario)


@pytest.mark.parametrize("remote", [False, True])
def test_pages_take_no_thread_from_commands(remote: bool) -> None:
    """This holds for any number of concurrent pages."""

    async def scenario() -> None:
        busy = threading.Event()
        with asking(Noting(remote)) as asker:
            pages = [asyncio.create_task(asker.run(busy.wait)) for _ in range(50)]
            await asyncio.sleep(0)
            try:
                assert await asker.ask(charge_of("h")) == Settled("h")
                assert await asker.ask_all([charge_of("h")]) == [Settled("h")]
                assert not any(page.done() for page in pages)
            finally:
                busy.set()
            await asyncio.gather(*pages)

    run(scenario)


def test_somebody_who_goes_away_harms_nobody() -> None:
    async def scenario() -> None:
        store = Noting(remote=True)
        store.pause = threading.Event()
        with asking(store) as asker:
            gone = asyncio.create_task(asker.ask(charge_of("gone")))
            stays = asyncio.create_task(asker.ask(charge_of("stays")))
            await asyncio.sleep(0)
            gone.cancel()
            store.pause.set()
            assert await stays == Settled("stays")

    run(scenario)
