"""How a worker asks its store: at once where that is quick, else on threads; what is asked in one moment goes together."""

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
"""How many batches are with the store at once. One on a local store, which executes one command after the other anyway."""
_THREADS = _BATCHES + 2
_PAGES = 4
"""How many threads there are for what looks at many rows: however much of that is asked for, commands have their own."""
_BATCH = 64
_LIGHT = 64
"""How many subjects with their default limits, names and holds the event loop looks at for one command."""
_AT_ONCE_SECONDS = 0.002
"""How long the event loop waits for a file that another process keeps busy."""


class Asker:
    """Asks `store` for one event loop. Its methods are for that loop; the store may run on threads."""

    def __init__(self, store: Store, *, test_clock: bool = False) -> None:
        self._store, self._test_clock = store, test_clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="budget-server")
        self._pages = ThreadPoolExecutor(_PAGES, thread_name_prefix="budget-pages")
        self._waiting: deque[Asked] = deque()
        self._free = _BATCHES if store.remote else 1
        self._elsewhere = 0

    def close(self) -> None:
        """Let the threads end."""
        self._pages.shutdown()
        self._threads.shutdown()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)`, which looks at many rows, on a thread."""
        return await self._elsewhere_on(self._pages, work, *arguments)

    async def run_soon(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` on one of the threads that commands have."""
        return await self._elsewhere_on(self._threads, work, *arguments)

    async def run_aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)`, which does not keep the store from others, on one of the threads that commands have."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _elsewhere_on(self, threads: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
        # The loop does not wait for a local store that a thread has.
        self._elsewhere += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
        finally:
            self._elsewhere -= 1

    async def ask_all(self, commands: Sequence[Command], note: Note | None = None) -> list[Outcome]:
        """What became of each of some commands, which are executed in their order. `note` is called, on the thread, with the
        seconds that they took. Raises what the store raises.
        """

        def work() -> list[Outcome]:
            began = time.perf_counter()
            outcomes = self._ask_all(commands)
            if note is not None:
                note(commands, outcomes, time.perf_counter() - began)
            return outcomes

        return await (self.run_soon if all(map(is_short, commands)) else self.run)(work)

    async def ask(self, command: Command) -> Outcome:
        """What became of a command. Raises what the store raises.

        A local store that nobody keeps busy answers on the loop what calls ask: handing commands to a thread costs more than
        executing them.
        """
        if not is_light(command):
            return (await self.ask_all([command]))[0]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((command, future))
        if self._free:
            self._free -= 1
            # Behind all that is ready now: what else is asked in this turn of the loop goes to the store with it.
            loop.call_soon(self._next)
        return await future

    def _next(self) -> None:
        """Have the store execute what waits, or be free."""
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
        """Execute the commands here. False if another process has the file: they may be sent again, that is what ids are for."""
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
            # Only asking for each alone tells whose rows are in trouble. The others must not fail with them.
            return [self._executed([command], timeout)[0] for command in commands]

    def _ask_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        if self._test_clock:
            return self._store.execute_all(commands, timeout)
        return ask_all(self._store, commands, timeout)


def is_short(command: Command) -> bool:
    """Whether the command looks at a few rows, however large the ledger is."""
    if isinstance(command, (Read, ReadUsage)):
        return command.subject is not None
    return not isinstance(command, Sweep)


def is_light(command: Command) -> bool:
    """Whether the command is one of those that calls make, and takes no longer than theirs."""
    if isinstance(command, (Reserve, Settle)):
        lists = len(command.models) + (len(command.aliases) if isinstance(command, Settle) else 0)
        return len(command.subjects) * (1 + len(command.defaults)) + lists <= _LIGHT
    return isinstance(command, Release) or (isinstance(command, Renew) and len(command.holds) <= _LIGHT)


def _hand_out(batch: list[Asked], results: Sequence[_Result]) -> None:
    for (_, future), result in zip(batch, results):
        if future.done():  # the caller has gone
            continue
        if isinstance(result, Exception) and not isinstance(result, BudgetInputError):
            future.set_exception(result)
        else:
            future.set_result(result)


def _fail(batch: list[Asked], error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
