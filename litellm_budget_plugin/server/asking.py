"""Access of a worker to its store: quick commands run on the event loop, others on threads. Concurrent commands form a batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, Union

from litellm_budget_plugin.core.commands import Command, Read, ReadUsage, Release, Renew, Reserve, Settle, Sweep
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask_all

T = TypeVar("T")
Note = Callable[[Sequence[Command], Sequence[Outcome], float], None]
Asked = tuple[Command, "asyncio.Future[Outcome]"]
_Result = Union[Outcome, Exception]

_BATCHES = 4
"""The number of batches that a networked store executes at the same time. A local store gets one, because it executes commands
one after the other.
"""
_THREADS = _BATCHES + 2
_PAGES = 4
"""The number of threads for work that reads many rows. Commands have their own threads, so that this work cannot block them."""
_BATCH = 64
_LIGHT = 64
"""A command with more subjects (times their default limits), names and holds than this does not run on the event loop."""
_AT_ONCE_SECONDS = 0.002
"""Seconds that the event loop waits for a file that another process has locked."""


class Asker:
    """Sends commands to `store` for one event loop. Call its methods from that loop; the store may run on threads."""

    def __init__(self, store: Store, *, test_clock: bool = False) -> None:
        self._store, self._test_clock = store, test_clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="budget-server")
        self._pages = ThreadPoolExecutor(_PAGES, thread_name_prefix="budget-pages")
        self._waiting: deque[Asked] = deque()
        self._free = _BATCHES if store.remote else 1
        self._elsewhere = 0

    def close(self) -> None:
        """Wait for the threads and end them."""
        self._pages.shutdown()
        self._threads.shutdown()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)`, which reads many rows, on a thread for such work."""
        return await self._elsewhere_on(self._pages, work, *arguments)

    async def run_soon(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)` on one of the threads for commands."""
        return await self._elsewhere_on(self._threads, work, *arguments)

    async def run_aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)`, which does not block the store for others, on one of the threads for commands."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _elsewhere_on(self, threads: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
        # While a thread uses a local store, the loop does not wait for the store but hands commands to threads.
        self._elsewhere += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
        finally:
            self._elsewhere -= 1

    async def ask_all(self, commands: Sequence[Command], note: Note | None = None) -> list[Outcome]:
        """Execute commands in their order, and return the outcome of each. `note` is called on the thread with the commands,
        the outcomes, and the seconds that they took. Raises what the store raises.
        """

        def work() -> list[Outcome]:
            began = time.perf_counter()
            outcomes = self._ask_all(commands)
            if note is not None:
                note(commands, outcomes, time.perf_counter() - began)
            return outcomes

        return await (self.run_soon if all(map(is_short, commands)) else self.run)(work)

    async def ask(self, command: Command) -> Outcome:
        """Execute a command, and return its outcome. Raises what the store raises.

        An idle local store executes light commands on the event loop, because handing them to a thread costs more than
        executing them.
        """
        if not is_light(command):
            return (await self.ask_all([command]))[0]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((command, future))
        if self._free:
            self._free -= 1
            # The call is queued behind everything that is ready now, so that commands of the same turn of the loop form one
            # batch.
            loop.call_soon(self._next)
        return await future

    def _next(self) -> None:
        """Send the next batch of waiting commands to the store, or free its slot if none waits."""
        if not self._waiting:
            self._free += 1
            return
        loop = asyncio.get_running_loop()
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
        if not self._store.remote and not self._elsewhere and self._at_once(batch):
            loop.call_soon(self._next)
            return
        self._elsewhere += 1
        done = loop.run_in_executor(self._threads, self._executed, [command for command, _ in batch])
        done.add_done_callback(partial(self._came_back, batch))

    def _at_once(self, batch: list[Asked]) -> bool:
        """Execute the commands on the event loop. Return False if another process has locked the file; the commands may then be
        sent again, because their ids make them idempotent.
        """
        try:
            results = self._executed([command for command, _ in batch], _AT_ONCE_SECONDS)
        except BudgetStoreUnavailable:
            return False
        _hand_out(batch, results)
        return True

    def _came_back(self, batch: list[Asked], done: asyncio.Future[list[_Result]]) -> None:
        self._elsewhere -= 1
        error = done.exception()
        if error is None:
            _hand_out(batch, done.result())
        else:
            _fail(batch, error)
        self._next()

    def _executed(self, commands: Sequence[Command], timeout: float | None = None) -> list[_Result]:
        try:
            return [*self._ask_all(commands, timeout)]
        except BudgetStoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # the caller is told
            if len(commands) == 1:
                return [error]
            # Executing each command alone shows which of them fails. The others must not fail with it.
            return [self._executed([command], timeout)[0] for command in commands]

    def _ask_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        if self._test_clock:
            return self._store.execute_all(commands, timeout)
        return ask_all(self._store, commands, timeout)


def is_short(command: Command) -> bool:
    """Return whether the command reads a few rows only, however large the ledger is."""
    if isinstance(command, (Read, ReadUsage)):
        return command.subject is not None
    return not isinstance(command, Sweep)


def is_light(command: Command) -> bool:
    """Return whether the command is one that LLM calls cause, and takes no longer than a usual one."""
    if isinstance(command, (Reserve, Settle)):
        lists = len(command.models) + (len(command.aliases) if isinstance(command, Settle) else 0)
        return len(command.subjects) * (1 + len(command.defaults)) + lists <= _LIGHT
    return isinstance(command, Release) or (isinstance(command, Renew) and len(command.holds) <= _LIGHT)


def _hand_out(batch: list[Asked], results: Sequence[_Result]) -> None:
    for (_, future), result in zip(batch, results):
        if future.done():  # the caller has disconnected
            continue
        if isinstance(result, Exception) and not isinstance(result, BudgetInputError):
            future.set_exception(result)
        else:
            future.set_result(result)


def _fail(batch: list[Asked], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
