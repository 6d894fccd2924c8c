"""Reads the projects that somebody looks at, repeatedly, on a separate thread with a separate connection.

Once the first scan is done, a scan takes at most about a fifth of a core: after each query to the store it rests four times as
long as the query took. A change made on the dashboard starts the next scan at once, and that scan does not rest.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from litellm_budget_plugin.core.commands import Read, ReadUsage
from litellm_budget_plugin.core.windows import DAY
from litellm_budget_plugin.errors import BudgetError
from litellm_budget_plugin.server.dashboard.people import Person, people_of
from litellm_budget_plugin.server.dashboard.roster import Roster, roster_of
from litellm_budget_plugin.server.dashboard.totals import RECENT, Adding
from litellm_budget_plugin.server.ledger import ServedLedger
from litellm_budget_plugin.stores.protocol import Store, ask
from litellm_budget_plugin.stores.registry import open_store

_logger = logging.getLogger("litellm_budget_plugin.server")

_INTERVAL = 2.0
_LOOKED = 30.0
"""Seconds for which a project is still read after somebody looked at it."""
_FORGOTTEN = 600.0
_FIRST_SECONDS = 3.0
_RESTS = 4.0
_PAGE = 1000
_OLDER_SECONDS = 3600.0
"""Seconds after which days that hardly ever change are read again."""
_YESTERDAY_SECONDS = 60.0
"""Seconds after which yesterday is read again: charges may be delivered late."""
_MANY_ROWS = 50_000
_PATIENCE = 30.0
"""Seconds that a query of a scan may take: a networked store reads a day of all users."""


class Listed(NamedTuple):
    """A list that somebody looks at: the subjects of a scope in a project."""

    project: str
    scope: str = "user"


class _Watched:
    """The state of a list that somebody looks at. `stale`: its roster dates from an earlier visit."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.adding: Adding | None = None
        self.renewing: Adding | None = None
        self.added_at = self.yesterday_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Start reading for a visitor after a time without visitors."""
        self.began = self.looked_at = time.monotonic()
        self.due, self.hurried, self.stale = 0.0, True, True


class _Closing(Exception):
    """Raised on the thread when the server ends."""


class Rosters:
    """The rosters of a worker. `look` and `hurry` may be called from any thread."""

    def __init__(self, ledger: ServedLedger) -> None:
        self._ledger = ledger
        self._watched: dict[Listed, _Watched] = {}
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._store: Store | None = None

    def look(self, project: str, scope: str = "user") -> Roster:
        """Return the newest roster of a project's subjects, and keep reading it for a while."""
        listed = Listed(project, scope)
        with self._lock:
            watched = self._watched.get(listed)
            if watched is None:
                watched = self._watched[listed] = _Watched()
            elif time.monotonic() - watched.looked_at > _LOOKED:
                watched.begin()
            watched.looked_at = time.monotonic()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="budget-dashboard", daemon=True)
                self._thread.start()
        self._wake.set()
        return watched.roster

    def hurry(self, project: str, scope: str) -> None:
        """Read the project's subjects again at once, because something was changed."""
        with self._lock:
            watched = self._watched.get(Listed(project, scope))
            if watched is not None:
                watched.due, watched.hurried = 0.0, True
        self._wake.set()

    async def ready(self, project: str, scope: str = "user", top: bool = False) -> Roster:
        """Like `look`, but wait for the first scan, and with `top` also for the users who spent the most. The wait ends a few
        seconds after the scan began, so that a page of many users can show the progress.
        """
        self.look(project, scope)
        with self._lock:
            watched = self._watched[Listed(project, scope)]
        until = watched.began + _FIRST_SECONDS
        while not (roster := watched.roster).trouble and time.monotonic() < until:
            if not watched.stale and (not top or roster.added_up):
                break
            await asyncio.sleep(0.02)  # what is waited for happens on a thread
        return roster

    def store(self) -> Store:
        """Return a store for long readings, separate from the one that serves calls, which they must not delay; memory:// has
        only one. Raises what opening the store raises.
        """
        with self._opening:
            options = self._ledger.options
            if options.store_url.startswith("memory:"):
                return self._ledger.store
            if self._store is None:
                self._store = open_store(options.store_url, test_clock=options.test_clock, timeout=_PATIENCE)
            return self._store

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._store is not None:
            self._store.close()

    def _run(self) -> None:
        while not self._closed:
            now = time.monotonic()
            with self._lock:
                self._forget(now)
                looked = [item for item in self._watched.items() if now - item[1].looked_at <= _LOOKED]
                listed, watched = min(looked, key=lambda item: item[1].due, default=(Listed(""), None))
            if watched is None or watched.due > now:
                self._wake.wait(None if watched is None else watched.due - now)
                self._wake.clear()
                continue
            try:
                self._scan(listed, watched)
            except _Closing:
                return
            except BudgetError as error:
                _logger.error(
                    "the dashboard cannot read the %ss of project %r: %s", listed.scope, listed.project, error
                )
                watched.roster = replace(watched.roster, trouble="the ledger's store does not answer")
            except Exception:
                _logger.exception("the dashboard cannot read the %ss of project %r", listed.scope, listed.project)
                watched.roster = replace(watched.roster, trouble="reading failed; see the server's log")
            watched.due = max(watched.due, time.monotonic() + _INTERVAL) if not watched.hurried else 0.0
            if watched.roster.trouble:
                watched.hurried, watched.due = False, time.monotonic() + _INTERVAL

    def _forget(self, now: float) -> None:
        for listed in [each for each, one in self._watched.items() if now - one.looked_at > _FORGOTTEN]:
            del self._watched[listed]

    def _rest(self, watched: _Watched, took: float) -> None:
        if took and not watched.hurried and watched.roster.complete:
            until = time.monotonic() + _RESTS * took
            while not self._closed and not watched.hurried and (left := until - time.monotonic()) > 0:
                self._wake.wait(left)
                self._wake.clear()
        if self._closed:
            raise _Closing

    def _scan(self, listed: Listed, watched: _Watched) -> None:
        store, (project, scope), fast = self.store(), listed, watched.hurried
        defaults_of = partial(self._ledger.defaults, project)
        watched.hurried = False
        pages: list[list[Person]] = []
        began, after, seconds = 0, "", 0.0
        while True:
            start = time.monotonic()
            reply = ask(store, Read(project, scope, after=after, page=_PAGE, defaults=defaults_of()))
            pages.append(list(people_of(reply.accounts, defaults_of, reply.now)))
            began = began or reply.now
            took = time.monotonic() - start
            seconds += took
            if reply.after is None:
                break
            after = reply.after
            if not watched.roster.complete and len(pages) % 10 == 0:
                watched.roster = replace(watched.roster, at=began, by_id=tuple(each for page in pages for each in page))
            self._rest(watched, 0.0 if fast else took)
        before = watched.roster
        watched.roster = replace(
            roster_of(pages, began, seconds, complete=True), top=before.top, added_up=before.added_up
        )
        watched.stale = False
        if scope == "user":
            self._add_up(project, watched, store, began // DAY)
        store.sync()

    def _add_up(self, project: str, watched: _Watched, store: Store, today: int) -> None:
        now = time.monotonic()
        if watched.adding is not None and watched.adding.today != today:
            watched.adding = None
        if watched.adding is None or now - watched.added_at > _OLDER_SECONDS:
            watched.renewing = watched.renewing or Adding(today)
        yesterday = now - watched.yesterday_at > _YESTERDAY_SECONDS or watched.renewing is not None
        for adding in (watched.adding, watched.renewing):
            if adding is not None and adding.today == today:
                self._add(project, adding, store, today - yesterday * (RECENT - 1), today)
        if yesterday:
            watched.yesterday_at = now
        self._show(watched)
        if watched.renewing is not None:
            self._renew(project, watched, watched.renewing, store)

    def _renew(self, project: str, watched: _Watched, adding: Adding, store: Store) -> None:
        """Read the days before: all of them in the first scan, later some in each scan."""
        days = 1
        while not adding.complete and not watched.hurried:
            start = time.monotonic()
            until = adding.since - 1
            rows = self._add(project, adding, store, max(adding.first, until - days + 1), until)
            self._show(watched)
            took = time.monotonic() - start
            # Somebody waits for the first sum, so the rest is only as long as the reading.
            self._rest(watched, took if watched.adding else took / _RESTS)
            if watched.adding and rows >= _MANY_ROWS:
                return
            # One day of all users is read at a time, and more days where they have few rows.
            days = days * 2 if rows < _MANY_ROWS else max(1, days // 2)
        if adding.complete:
            watched.adding, watched.renewing, watched.added_at = adding, None, time.monotonic()
            self._show(watched)
        elif adding.today != watched.roster.at // DAY:
            watched.renewing = None

    def _add(self, project: str, adding: Adding, store: Store, since: int, until: int) -> int:
        reply = ask(store, ReadUsage(project, "user", since=since, until=until))
        adding.put(reply.rows, since, until)
        return len(reply.rows)

    def _show(self, watched: _Watched) -> None:
        adding = watched.adding or watched.renewing
        if adding is not None:
            watched.roster = replace(watched.roster, top=adding.top(), added_up=adding.complete)
