"""budget_context around yields, in threads, executors and tasks: the payer of a block pays for nothing outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin import BudgetSettings, BudgetUserMissing, budget_context
from litellm_budget_plugin.hooks import principal
from litellm_budget_plugin.hooks.principal import _found_payer
from tests.hooks.desk import WORTH, Desk

_SETTINGS = BudgetSettings(default_user="nobody", default_limit=1)


def _payer(settings: BudgetSettings, params: dict[str, Any]) -> str | None:
    return _found_payer(settings, params).user


def payer() -> str | None:
    """Return the user who would pay for a call made here."""
    return _payer(_SETTINGS, {})


async def payer_later() -> str:
    """Return the user who would pay for a call made here, after other tasks have run."""
    await asyncio.sleep(0)
    return payer()


def stream(user: str, steps: int = 3) -> Generator[str, None, str]:
    with budget_context(user=user):
        for _ in range(steps):
            yield payer()
    return payer()


async def async_stream(user: str, steps: int = 3) -> AsyncGenerator[str, None]:
    with budget_context(user=user):
        for _ in range(steps):
            yield await payer_later()


def test_a_block_can_be_left_in_another_context() -> None:
    steps = stream("alice")
    seen = [copy_context().run(next, steps) for _ in range(3)]
    # A context without the block has no payer. No other user pays.
    assert seen == ["alice", "nobody", "nobody"]
    assert copy_context().run(next, steps, "end") == "end"
    assert payer() == "nobody"


def test_a_block_that_is_left_elsewhere_ends_here_too() -> None:
    block = budget_context(user="alice")
    block.__enter__()
    assert payer() == "alice"
    copy_context().run(block.__exit__, None, None, None)
    assert payer() == "nobody"


def test_a_block_does_not_outlive_itself_in_a_task() -> None:
    async def main() -> list[str]:
        left = asyncio.Event()

        async def late() -> str:
            await left.wait()
            return payer()

        with budget_context(user="alice"):
            task = asyncio.create_task(late())
            carried = asyncio.create_task(budget_context.carry(late)())
            await asyncio.sleep(0)
        left.set()
        return [await task, await carried]

    assert asyncio.run(main()) == ["nobody", "alice"]


@given(st.lists(st.integers(0, 3), max_size=40))
def test_in_whatever_order_blocks_end_none_is_left_and_no_ended_one_pays(order: list[int]) -> None:
    open_ones: list[budget_context] = []
    for number, choice in enumerate(order):
        if choice == 0 or not open_ones:
            block = budget_context(user=number)
            block.__enter__()
            open_ones.append(block)
        else:
            open_ones.pop(choice % len(open_ones)).__exit__(None, None, None)
        assert payer() == (open_ones[-1].payer.user if open_ones else "nobody")
    for block in open_ones:
        block.__exit__(None, None, None)
    assert payer() == "nobody"


def test_blocks_that_overlap_without_end_are_not_kept() -> None:
    before: budget_context | None = None
    gone: list[weakref.ref[Any]] = []
    for number in range(50):
        block = budget_context(user=number)
        block.__enter__()
        gone.append(weakref.ref(block))
        if before is not None:
            before.__exit__(None, None, None)
        before = block
    assert before is not None
    before.__exit__(None, None, None)
    del block, before
    gc.collect()
    assert [number for number, reference in enumerate(gone) if reference() is not None] == []


def test_a_block_is_entered_once() -> None:
    block = budget_context(user="alice")
    with block:
        pass
    with pytest.raises(RuntimeError, match="once"), block:
        pass
    assert payer() == "nobody"


def test_an_error_passes_through() -> None:
    with pytest.raises(KeyError), budget_context(user="alice"):
        raise KeyError("x")
    assert payer() == "nobody"


def test_a_dropped_generator_ends_its_block() -> None:
    steps = stream("alice")
    next(steps)
    del steps
    gc.collect()
    assert payer() == "nobody"


@contextlib.contextmanager
def dependency(user: str) -> Iterator[None]:
    with budget_context(user=user):
        yield


@contextlib.asynccontextmanager
async def async_dependency(user: str) -> AsyncIterator[None]:
    with budget_context(user=user):
        yield


def test_a_context_manager_of_ones_own() -> None:
    with dependency("alice"):
        with dependency("bob"):
            assert payer() == "bob"
        assert payer() == "alice"

    async def main() -> str:
        async with async_dependency("carol"):
            return await payer_later()

    assert asyncio.run(main()) == "carol"
    assert payer() == "nobody"


def test_a_dependency_that_runs_in_a_thread_pool_can_be_left() -> None:
    """FastAPI enters and leaves a synchronous dependency on threads, each in a copy of the request's context."""

    async def main() -> str:
        block = dependency("alice")
        await asyncio.to_thread(block.__enter__)
        await asyncio.to_thread(block.__exit__, None, None, None)
        return payer()

    assert asyncio.run(main()) == "nobody"


def test_interleaved_generators_are_told_apart() -> None:
    streams = [budget_context.iterate(stream(user)) for user in ("alice", "bob", "carol")]
    assert [[next(one) for one in streams] for _ in range(3)] == [["alice", "bob", "carol"]] * 3
    assert payer() == "nobody"
    with pytest.raises(StopIteration) as end:
        next(streams[1])
    assert end.value.value == "nobody"
    assert next(streams[0], "end") == "end"


def test_interleaved_async_generators_are_told_apart() -> None:
    async def main() -> list[list[str]]:
        first, second = (budget_context.iterate(async_stream(user)) for user in ("alice", "bob"))
        seen = [[await first.__anext__(), await second.__anext__()] for _ in range(3)]
        assert payer() == "nobody"
        for one in (first, second):
            with pytest.raises(StopAsyncIteration):
                await one.__anext__()
        return seen

    assert asyncio.run(main()) == [["alice", "bob"]] * 3


def test_a_generator_stepped_by_a_thread_pool_keeps_its_payer() -> None:
    """Starlette asks for each chunk on a thread of a pool, in a copy of the request's context."""

    async def main() -> list[str]:
        steps = budget_context.iterate(stream("alice"))
        return [await asyncio.to_thread(next, steps, "end") for _ in range(4)]

    assert asyncio.run(main()) == ["alice"] * 3 + ["end"]


def test_iterate_takes_the_payer_along_and_lets_it_outlive_the_block() -> None:
    def plain() -> Iterator[str]:
        for _ in range(3):
            yield payer()

    with budget_context(user="alice"):
        steps = budget_context.iterate(plain())
        assert next(steps) == "alice"
    assert next(steps) == "alice"
    with budget_context(user="bob"):
        assert next(steps) == "alice"


@pytest.mark.parametrize("how", ["close", "throw", "drop"])
def test_an_early_exit_ends_the_inner_generator(how: str) -> None:
    seen: list[str] = []

    def inner() -> Generator[str, None, None]:
        with budget_context(user="alice"):
            try:
                yield payer()
            finally:
                seen.append(payer() if how != "drop" else "dropped")

    steps = budget_context.iterate(inner())
    assert next(steps) == "alice"
    if how == "close":
        steps.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            steps.throw(KeyError("x"))
    else:
        del steps
        gc.collect()
    assert seen == ["alice" if how != "drop" else "dropped"]
    assert payer() == "nobody"


def test_an_early_exit_ends_the_inner_async_generator() -> None:
    seen: list[str] = []

    async def inner() -> AsyncGenerator[str, None]:
        with budget_context(user="alice"):
            try:
                yield payer()
            finally:
                seen.append(await payer_later())

    async def main() -> None:
        steps = budget_context.iterate(inner())
        assert await steps.__anext__() == "alice"
        await steps.aclose()
        steps = budget_context.iterate(inner())
        assert await steps.__anext__() == "alice"
        with pytest.raises(KeyError):
            await steps.athrow(KeyError("x"))

    asyncio.run(main())
    assert seen == ["alice", "alice"]


def test_what_is_sent_arrives() -> None:
    def echo() -> Generator[Any, Any, None]:
        sent = None
        while True:
            sent = yield payer(), sent

    async def async_echo() -> AsyncGenerator[Any, Any]:
        sent = None
        while True:
            sent = yield await payer_later(), sent

    async def main() -> Any:
        steps = budget_context.iterate(async_echo())
        await steps.asend(None)
        return await steps.asend(2)

    with budget_context(user="alice"):
        steps = budget_context.iterate(echo())
        next(steps)
        assert steps.send(1) == ("alice", 1)
        assert asyncio.run(main()) == ("alice", 2)


def test_a_cancelled_step_is_cancelled_inside() -> None:
    seen: list[str] = []

    async def inner() -> AsyncGenerator[str, None]:
        with budget_context(user="alice"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(payer())
                raise
            yield ""

    async def main() -> None:
        async def ask() -> None:
            await budget_context.iterate(inner()).__anext__()

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["alice"]


def test_other_iterators() -> None:
    class Numbers:
        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> str:
            return await payer_later()

    async def main() -> str:
        return await budget_context.iterate(Numbers()).__anext__()

    with budget_context(user="alice"):
        assert asyncio.run(main()) == "alice"
        assert list(budget_context.iterate(map(str, [1, 2]))) == ["1", "2"]
        assert list(budget_context.iterate(payer() for _ in range(2))) == ["alice"] * 2
    with pytest.raises(TypeError, match="list"):
        budget_context.iterate([1, 2])  # type: ignore[call-overload]


def test_carry_takes_the_payer_into_threads_and_executors() -> None:
    def twice(text: str) -> str:
        return text + payer()

    with ThreadPoolExecutor(1) as pool:
        with budget_context(user="alice"):
            work = budget_context.carry(twice)
            first = pool.submit(work, "by ")
        # The block has ended, and the pool's thread is used again.
        assert (first.result(), pool.submit(work, "by ").result()) == ("by alice", "by alice")
        assert pool.submit(payer).result() == "nobody"
    assert work.__name__ == "twice"


def test_carry_takes_nobody_along_too() -> None:
    work = budget_context.carry(payer)
    with budget_context(user="bob"):
        assert work() == "nobody"
        assert payer() == "bob"


def test_carry_takes_the_payer_into_several_threads_at_once() -> None:
    meet = threading.Barrier(4)

    def work() -> str:
        meet.wait(20)
        return payer()

    with ThreadPoolExecutor(4) as pool:
        futures = []
        for user in ("alice", "bob"):
            with budget_context(user=user):
                carried = budget_context.carry(work)
            futures += [pool.submit(carried), pool.submit(carried)]
        assert [future.result() for future in futures] == ["alice", "alice", "bob", "bob"]


def _returns_a_coroutine() -> Any:
    return payer_later()


@pytest.mark.parametrize("function", [payer_later, _returns_a_coroutine, partial(payer_later), lambda: payer_later()])
def test_carry_takes_the_payer_into_coroutines(function: Callable[[], Any]) -> None:
    with budget_context(user="alice"):
        carried = budget_context.carry(function)
        coroutine = carried()
    assert asyncio.run(coroutine) == "alice"


def test_carry_takes_the_payer_into_generators() -> None:
    def steps() -> Iterator[str]:
        yield payer()
        yield payer()

    async def later() -> AsyncIterator[str]:
        yield await payer_later()

    async def main() -> list[str]:
        return [one async for one in carried_later()]

    with budget_context(user="alice"):
        carried, carried_later = budget_context.carry(steps), budget_context.carry(later)
    assert list(carried()) == ["alice", "alice"]
    assert asyncio.run(main()) == ["alice"]


def test_a_context_decorates_functions() -> None:
    decorated = budget_context(user="alice")(payer)
    assert (decorated(), decorated(), payer()) == ("alice", "alice", "nobody")
    assert asyncio.run(budget_context(user="alice")(payer_later)()) == "alice"


def test_a_call_in_a_thread_is_charged_to_whom_carry_names(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="10")
    arguments = {name: value for name, value in desk.arguments("").items() if name != "user"}
    with ThreadPoolExecutor(1) as pool, budget_context(user="alice"):
        pool.submit(budget_context.carry(litellm.completion), **arguments).result()
    assert (desk.spent("alice"), desk.spent("anonymous")) == (WORTH, 0)


def test_a_call_that_lost_its_context_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal, "_warned", set())
    with ThreadPoolExecutor(1) as pool, budget_context(user="alice"):
        assert [pool.submit(payer).result() for _ in range(3)] == ["nobody"] * 3
    (record,) = [record for record in caplog.records if "names no user" in record.message]
    assert record.levelname == "WARNING"
    for name in ("budget_context.carry", "budget_context.iterate", "ON_MISSING_USER=reject"):
        assert name in record.message


def test_a_call_that_lost_its_context_can_be_refused() -> None:
    settings = BudgetSettings(on_missing_user="reject", default_limit=1)
    with ThreadPoolExecutor(1) as pool, budget_context(user="alice"):
        with pytest.raises(BudgetUserMissing, match=r"budget_context\.carry"):
            pool.submit(_payer, settings, {}).result()
        assert pool.submit(budget_context.carry(_payer), settings, {}).result() == "alice"
