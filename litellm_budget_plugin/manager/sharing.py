"""The store of a URL, its settler and its journal: opened once in a process, and shared by all ledgers that name it."""

from __future__ import annotations

import logging
import os
import threading
from typing import NamedTuple

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.settler import Settler
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked, open_store, place_of

_logger = logging.getLogger("litellm_budget_plugin")
_LOCAL = ("memory:", "sqlite:")


def store_key(url: str) -> str:
    """The URL with a relative path made absolute, so that it names one store whatever the working directory."""
    prefix = "sqlite:///"
    if url.startswith(prefix) and url != prefix and not url.startswith(prefix + "/"):
        return prefix + os.path.abspath(url.removeprefix(prefix))
    return url


class Way(NamedTuple):
    """How a store is used. `memory://` is one ledger, however it is used."""

    key: str
    timeout: float = 0.0
    directory: str | None = None
    most: int = 0


class _Opened:
    __slots__ = ("settler", "users")

    def __init__(self, settler: Settler) -> None:
        self.settler = settler
        self.users = 0


_opened: dict[Way, _Opened] = {}
_opening = threading.Lock()


def acquire(key: str, timeout: float, settings: BudgetSettings) -> tuple[Way, Settler]:
    """The settler of the store that `key` (see `store_key`) names, shared by those who use it in the same way, and what to
    `let_go` of afterwards. Raises what `open_store` does, but for a networked store that does not answer.
    """
    if key.startswith("memory:"):
        way = Way(key)
    else:
        way = Way(key, timeout, journal_directory(key, settings.journal), settings.journal_limit)
    with _opening:
        opened = _opened.get(way)
        # One that nobody needs any more goes on while its calls do, and so does what they spend.
        if opened is None or not opened.settler.stay():
            journal = None if way.directory is None else Journal(way.directory, place_of(key))
            store = _open(key, timeout)
            settler = Settler(store, timeout, journal, settings.journal_limit, lambda: _forget(way, settler))
            opened = _opened[way] = _Opened(settler)
        opened.users += 1
        return way, opened.settler


def _open(key: str, timeout: float) -> Store:
    try:
        return open_store(key, timeout=timeout)
    except BudgetStoreUnavailable as error:
        if key.startswith(_LOCAL):
            raise
        # A service must be able to start while its store is away; its calls fare by ON_STORE_ERROR.
        _logger.error("the store does not answer at the start, and is tried again: %s", error)
        return LazyStore(masked(key), lambda seconds: open_store(key, timeout=min(timeout, seconds)), timeout)


def journal_directory(key: str, setting: str | None) -> str | None:
    """Where charges wait that the store named by `key` cannot take; None where they wait in memory only."""
    if setting == "off" or key.startswith("memory:"):
        return None
    beside = os.path.dirname(key.removeprefix("sqlite:///")) if key.startswith("sqlite:") else ""
    directory = os.path.abspath(setting or os.path.join(beside, "litellm_budget_journal"))
    place = directory
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK | os.X_OK):
        _logger.warning(
            "LITELLM_BUDGET_JOURNAL: %s cannot be written; charges that the store cannot take would wait in memory only",
            directory,
        )
    return directory


def let_go(way: Way) -> None:
    """One ledger needs it no longer; with the last one it is closed, as soon as its calls are over."""
    with _opening:
        opened = _opened[way]
        opened.users -= 1
        if opened.users:
            return
        opened.settler.leave()
    opened.settler.finish()


def _forget(way: Way, settler: Settler) -> None:
    with _opening:
        if way in _opened and _opened[way].settler is settler:
            del _opened[way]


def _after_fork() -> None:
    # Another thread of the parent may have been opening a store, and its lock would stay locked here.
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
