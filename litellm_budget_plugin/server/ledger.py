"""The ledger of a server's worker: one store, its keys, and the periodic upkeep of both."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from litellm_budget_plugin.core.accounts import Default, Subject
from litellm_budget_plugin.core.commands import Accounts, BaseCommand, Command, Read, ReplyT_co, Reserve, Settle, Sweep
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetError, BudgetInputError, BudgetStoreError, BudgetStoreUnavailable
from litellm_budget_plugin.manager.budgets import Budgets
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.policies import Policies
from litellm_budget_plugin.metrics import server_metrics
from litellm_budget_plugin.policy import Policy
from litellm_budget_plugin.server.asking import Asker
from litellm_budget_plugin.server.keys import (
    Key,
    KeyRing,
    Session,
    end_old_sessions,
    has_had_keys,
    list_keys,
    list_sessions,
)
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.protocol import Outcome, Store, ask
from litellm_budget_plugin.stores.registry import masked, open_store

_logger = logging.getLogger("litellm_budget_plugin.server")
T = TypeVar("T")

REFRESH_SECONDS = 2.0
"""Seconds for which a revoked key may still be accepted."""
_SYNC_SECONDS = 1.0
_SWEEP_SECONDS = 3600.0
_DAYS_KEPT = 400


class ServedLedger:
    """The store of a worker. Call its methods from the worker's event loop; slow work on the store runs on threads."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.store = _opened(options)
        self.ring = KeyRing()
        self.metrics = server_metrics()
        self._asker = Asker(self.store, test_clock=options.test_clock)
        self._policies, self._none = Policies(options.settings) if options.settings else None, Policy()
        self._seen: dict[str, tuple[Default, ...]] = {}
        self._refreshed_at = -REFRESH_SECONDS
        self._refreshing = asyncio.Lock()
        self._unread: BudgetStoreError | None = None
        self._probing: asyncio.Task[Accounts] | None = None
        self._upkeep: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Read the keys, if the store answers, and start the upkeep."""
        try:
            await self.refresh()
        except BudgetStoreError as error:
            _logger.error("the store does not answer at the start, and is tried again: %s", error)
        # Each task runs by itself, so that keys and syncs do not wait for a sweep.
        duties = (
            self._every(_SYNC_SECONDS, self.sync),
            self._every(REFRESH_SECONDS / 2, self.refresh),
            self._every(_SWEEP_SECONDS, partial(self.run, self._sweep)),
        )
        self._upkeep = [asyncio.create_task(duty) for duty in duties]

    async def end(self) -> None:
        """Make acknowledged charges survive a power cut, and close the store."""
        for duty in self._upkeep:
            duty.cancel()
        try:
            await self.sync()
        except BudgetStoreError as error:
            _logger.error("the store could not be synced at the end: %s", error)
        self._asker.close()
        self.store.close()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(*arguments)`, which makes long or many queries, on a thread for such work. Raises what it raises."""
        with self._counting_failures():
            return await self._asker.run(work, *arguments)

    async def sync(self) -> None:
        """Make acknowledged charges survive a power cut. Raises what the store raises."""
        await self._asker.run_aside(self.store.sync)

    async def probe(self) -> None:
        """Send the store a query; concurrent callers share one. Raises what the store raises."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self.execute(Read("litellm-budget:ready", "probe", "")))
        await asyncio.shield(self._probing)

    async def execute(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        """Execute a command, and return the store's reply. Raises BudgetInputError for a command that can never be applied, and
        what the store raises.
        """
        asked, began = cast("Command", command), time.perf_counter()
        with self._counting_failures():
            outcome = await self._asker.ask(asked)
        self._note([asked], [outcome], time.perf_counter() - began)
        if isinstance(outcome, BudgetInputError):
            raise outcome
        return cast("ReplyT_co", outcome)

    async def execute_all(self, commands: Sequence[Command]) -> list[Outcome]:
        """Execute commands in their order, and return the outcome of each. Raises what the store raises."""
        with self._counting_failures():
            return await self._asker.ask_all(commands, self._note)

    def defaults(self, project: str, *subjects: Subject) -> tuple[Default, ...]:
        """Return the limits that are set outside of the ledger. Those of whole scopes are the ones that the project's commands
        brought last; before the first such command, those of the server's settings. Those of `subjects` come from the settings.
        """
        known, seen = self._policy.defaults_of(subjects), self._seen.get(project)
        return known if seen is None else (*seen, *(each for each in known if each.subject))

    def class_of(self, subject: Subject) -> str | None:
        """Return the class of users in the server's settings that a subject belongs to, None if there is none."""
        return self._policy.class_of(subject.id) if subject.scope == "user" else None

    @property
    def _policy(self) -> Policy:
        return self._none if self._policies is None else self._policies.current()

    def budgets(self, project: str, ids: Callable[[], str] = new_id, store: Store | None = None) -> Budgets:
        """Return a project's budgets, for use on a thread. `ids` makes the ids of its changes. Pass another `store` for long
        readings.
        """
        return Budgets(_ProjectLedger(self, project, ids, store or self.store))

    def _note(self, commands: Sequence[Command], outcomes: Sequence[Outcome], seconds: float) -> None:
        for command, outcome in zip(commands, outcomes):
            if isinstance(outcome, BudgetInputError):
                continue
            # A manager may not know the limits that the callbacks enforce. It then brings defaults without a limit.
            if isinstance(command, (Reserve, Settle)) and any(
                one.limit is not None and not one.subject for one in command.defaults
            ):
                self._seen[command.project] = tuple(one for one in command.defaults if not one.subject)
            if self.metrics is not None:
                self.metrics.observe_reply(command, outcome, seconds)

    @contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except BudgetStoreError as error:
            if self.metrics is not None:
                self.metrics.observe_error("unavailable" if isinstance(error, BudgetStoreUnavailable) else "error")
            raise

    async def refresh(self) -> None:
        """Read the keys again. Raises what the store raises."""
        asked = time.monotonic()
        async with self._refreshing:
            # If the reading that this caller waited for began after the caller asked, its result is recent enough. So callers
            # do not wait one after the other for a store that is unreachable.
            if asked >= self._refreshed_at:
                self._refreshed_at = time.monotonic()
                # Unless the reading succeeds, the callers that wait for it get this error, however it ends.
                self._unread = BudgetStoreUnavailable("the keys could not be read")
                try:
                    new = not self.ring.known
                    self.ring.replace(*await self._asker.run_soon(self._read_keys))
                    if new and self.options.open_access and not self.ring.keyed:
                        _logger.info(
                            "while the ledger has no key, everybody on this machine may read and change everything"
                        )
                except BudgetStoreError as error:
                    self._unread = error
                    raise
                self._unread = None
            elif self._unread is not None:
                raise type(self._unread)(str(self._unread)) from self._unread

    def _read_keys(self) -> tuple[list[Key], bool, list[Session]]:
        return list(list_keys(self.store)), has_had_keys(self.store), list(list_sessions(self.store))

    async def _every(self, seconds: float, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await duty()
            except BudgetError as error:
                _logger.error("the store does not answer; it is tried again: %s", error)
            except Exception:
                # Without the upkeep, revoked keys would stay valid.
                _logger.exception("the upkeep failed, and will run again")

    def _sweep(self) -> None:
        end_old_sessions(self.store)
        for project in self.store.projects():
            try:
                self.store.execute(Sweep(project, round(self.options.retention * DAY), _DAYS_KEPT * DAY))
            except BudgetStoreUnavailable:
                raise
            except Exception:
                # Bad rows of one project must not stop the sweep of the others.
                _logger.exception("project %r cannot be swept", project)


class _ProjectLedger:
    """One project of the ledger, with the interface that `Budgets` needs."""

    timezone = "UTC"
    """Displayed sentences name every other time zone, so that they can be sent back unchanged."""

    def __init__(self, ledger: ServedLedger, project: str, ids: Callable[[], str], store: Store) -> None:
        self._ledger, self.project, self.new_id, self._store = ledger, project, ids, store

    def ask(self, command: BaseCommand[ReplyT_co]) -> ReplyT_co:
        return ask(self._store, command)

    ask_settled = ask

    def defaults_of(self, *subjects: Subject) -> tuple[Default, ...]:
        return self._ledger.defaults(self.project, *subjects)


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
        return LazyStore(masked(url), reopen, timeout)
