"""The ledger as a server's worker uses it: one store, its keys, and what has to be done about both now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from litellm_budget_plugin.core.accounts import Default
from litellm_budget_plugin.core.commands import Command, Read, ReadUsage, Reply, Reserve, Settle, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetError, BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.metrics import server_metrics
from litellm_budget_plugin.server.keys import KeyRing, has_had_keys, list_keys
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask_all
from litellm_budget_plugin.stores.registry import masked, open_store
from litellm_budget_plugin.stores.reopening import Reopening

_logger = logging.getLogger("litellm_budget_plugin.server")
T = TypeVar("T")

REFRESH_SECONDS = 2.0
"""How long a key that was revoked may still be good for."""
_SYNC_SECONDS = 1.0
_SWEEP_SECONDS = 3600.0
_DAYS_KEPT = 400
_THREADS = 8
_ASKING = 4
"""How many batches are with the store at once. One on a local store, which executes one command after the other anyway."""
_BATCH = 64
_AT_ONCE_SECONDS = 0.002
"""How long the event loop waits for a file that another process keeps busy."""


class ServedLedger:
    """The store of a worker. Its methods are for the worker's event loop; the store runs on threads."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.store = _opened(options)
        self.ring = KeyRing()
        self.metrics = server_metrics()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="budget-server")
        self._waiting: deque[tuple[Command, asyncio.Future[Outcome]]] = deque()
        self._free = _ASKING if self.store.remote else 1
        self._elsewhere = 0
        self._seen: dict[str, tuple[Default, ...]] = {}
        self._refreshed_at, self._swept_at = -REFRESH_SECONDS, time.monotonic()
        self._refreshing = asyncio.Lock()
        self._unread: BudgetStoreError | None = None
        self._changed = False
        self._upkeep: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read the keys, if the store answers, and start the upkeep."""
        try:
            await self.refresh()
        except BudgetStoreError as error:
            _logger.error("the store does not answer at the start, and is tried again: %s", error)
        self._upkeep = asyncio.create_task(self._look_after())

    async def end(self) -> None:
        """Make what was acknowledged survive a power cut, and let go of the store."""
        if self._upkeep is not None:
            self._upkeep.cancel()
        try:
            await self.run(self.store.sync)
        except BudgetStoreError as error:
            _logger.error("the store could not be synced at the end: %s", error)
        self._threads.shutdown()
        self.store.close()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` on a thread of the ledger's."""
        self._elsewhere += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._elsewhere -= 1

    async def execute(self, command: Command) -> Reply:
        """The store's reply to a command. Raises BudgetInputError for what can never be applied, and what the store raises.

        A local store that nobody keeps busy answers at once: handing a command to a thread costs more than executing it.
        Everything else goes to threads, and what arrives while others are being executed goes to the store together.
        """
        began = time.perf_counter()
        self._note(command)
        try:
            outcome = await self._outcome(command)
        except BudgetStoreError as error:
            self._failed(error)
            raise
        return self._told(command, outcome, time.perf_counter() - began)

    async def _outcome(self, command: Command) -> Outcome:
        if not self.store.remote and not self._elsewhere and _is_short(command):
            try:
                return self._ask_all([command], _AT_ONCE_SECONDS)[0]
            except BudgetStoreUnavailable:
                # Another process has it. The command may be sent again: that is what its id is for.
                pass
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._free:
            self._free -= 1
            self._start()
        return await future

    async def execute_all(self, commands: Sequence[Command]) -> list[Outcome]:
        """What became of each of some commands, which are executed in their order."""
        began = time.perf_counter()
        for command in commands:
            self._note(command)
        try:
            outcomes = await self.run(self._ask_all, commands)
        except BudgetStoreError as error:
            self._failed(error)
            raise
        for command, outcome in zip(commands, outcomes):
            if not isinstance(outcome, BudgetInputError):
                self._told(command, outcome, time.perf_counter() - began)
        return outcomes

    def defaults(self, project: str) -> tuple[Default, ...]:
        """The limits that users without one of their own follow, as the commands of that project last brought them; before
        the first one, those of the options.
        """
        return self._seen.get(project, self.options.defaults)

    def _told(self, command: Command, outcome: Outcome, seconds: float) -> Reply:
        """The reply, which the metrics were told."""
        if isinstance(outcome, BudgetInputError):
            raise outcome
        if self.metrics is not None:
            self.metrics.observe_reply(command, outcome, seconds)
        return outcome

    def _failed(self, error: BudgetStoreError) -> None:
        if self.metrics is not None:
            self.metrics.observe_error("unavailable" if isinstance(error, BudgetStoreUnavailable) else "error")

    def _note(self, command: Command) -> None:
        self._changed = True
        # A manager need not know the limits that the callbacks enforce, and then brings defaults without one.
        if isinstance(command, (Reserve, Settle)) and any(default.limit is not None for default in command.defaults):
            self._seen[command.project] = command.defaults

    def _start(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
        loop = asyncio.get_running_loop()
        self._elsewhere += 1
        future = loop.run_in_executor(self._threads, self._ask_all, [command for command, _ in batch])
        future.add_done_callback(lambda done: self._hand_out([each for _, each in batch], done))

    def _hand_out(self, futures: list[asyncio.Future[Outcome]], done: asyncio.Future[list[Outcome]]) -> None:
        self._elsewhere -= 1
        error = done.exception()
        outcomes = [None] * len(futures) if error is not None else done.result()
        for future, outcome in zip(futures, outcomes):
            if future.done():  # whoever asked has gone
                continue
            if error is not None:
                future.set_exception(error)
            elif outcome is not None:
                future.set_result(outcome)
        if self._waiting:
            self._start()
        else:
            self._free += 1

    def _ask_all(self, commands: Sequence[Command], timeout: float | None = None) -> list[Outcome]:
        if self.options.test_clock:
            return self.store.execute_all(commands, timeout)
        return ask_all(self.store, commands, timeout)

    async def refresh(self) -> None:
        """Read the keys anew. Raises what the store raises."""
        asked = time.monotonic()
        async with self._refreshing:
            # Whoever has waited here was served by the reading that it waited for, if that began later; so a store that is
            # away does not let them wait one after the other.
            if asked >= self._refreshed_at:
                self._refreshed_at, self._unread = time.monotonic(), None
                try:
                    self.ring.replace(*await self.run(lambda: (list(list_keys(self.store)), has_had_keys(self.store))))
                except BudgetStoreError as error:
                    self._unread = error
                    raise
            elif self._unread is not None:
                raise type(self._unread)(str(self._unread)) from self._unread

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            try:
                if self._changed:
                    self._changed = False
                    # Not by `run`: it holds no command up, so that those that arrive need not go to threads.
                    await asyncio.get_running_loop().run_in_executor(self._threads, self.store.sync)
                if time.monotonic() - self._refreshed_at >= REFRESH_SECONDS - _SYNC_SECONDS:
                    await self.refresh()
                if time.monotonic() - self._swept_at >= _SWEEP_SECONDS:
                    self._swept_at = time.monotonic()
                    await self.run(self._sweep)
            except BudgetError as error:
                _logger.error("the store does not answer; it is tried again: %s", error)

    def _sweep(self) -> None:
        for project in self.store.projects():
            self.store.execute(Sweep(project, round(self.options.retention * DAY), _DAYS_KEPT * DAY))


def _is_short(command: Command) -> bool:
    """Whether the command looks at a few rows, however large the ledger is."""
    if isinstance(command, (Read, ReadUsage)):
        return command.subject is not None
    return not isinstance(command, Sweep)


def _opened(options: ServerOptions) -> Store:
    url, timeout = options.store_url, options.store_timeout

    def reopen(seconds: float) -> Store:
        return open_store(url, test_clock=options.test_clock, timeout=min(timeout, seconds))

    try:
        return open_store(url, test_clock=options.test_clock, timeout=timeout)
    except BudgetStoreUnavailable as error:
        if url.startswith(("memory:", "sqlite:")):
            raise
        _logger.error("the store does not answer at the start, and is tried again: %s", error)
        return Reopening(masked(url), reopen, timeout)
