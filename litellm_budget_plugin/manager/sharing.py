"""The store of a URL, with its worker and its journal. A process opens it once, and all ledgers that name it share it."""

from __future__ import annotations

import logging
import os
import threading
from typing import NamedTuple

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.worker import StoreWorker
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.lazy import LazyStore
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked, open_store, place_of

_logger = logging.getLogger("litellm_budget_plugin")
_PROVIDED_TIMEOUT = 30.0
_LOCAL = ("memory:", "sqlite:")


def store_key(url: str) -> str:
    """Return the URL with an absolute path, so that it names the same store in every working directory."""
    prefix = "sqlite:///"
    if url.startswith(prefix) and url != prefix and not url.startswith(prefix + "/"):
        return prefix + os.path.abspath(url.removeprefix(prefix))
    return url


class Way(NamedTuple):
    """The key of one way to use a store. Every use of `memory://` is the same ledger."""

    key: str
    timeout: float = 0.0
    directory: str | None = None
    most: int = 0


_opened: dict[Way, StoreWorker] = {}
_opening = threading.Lock()


def acquire(key: str, timeout: float, settings: BudgetSettings) -> StoreWorker:
    """Return the worker of the store that `key` (see `store_key`) names. Everyone who uses the store in the same way shares it. The caller
    must release it. Raises the errors of `open_store`, except for a networked store that does not answer.
    """
    if key.startswith("memory:"):
        way = Way(key)
    else:
        way = Way(key, timeout, journal_directory(key, settings.journal), settings.journal_limit)
    with _opening:
        worker = _opened.get(way)
        # A worker without a ledger stays alive while its calls are in flight, so that their spend counts.
        if worker is None or not worker.retain():
            journal = None if way.directory is None else Journal(way.directory, place_of(key))
            new = StoreWorker(_open(key, timeout), timeout, journal, settings.journal_limit, lambda: _forget(way, new))
            worker = _opened[way] = new
        return worker


def provide(key: str, store: Store) -> StoreWorker:
    """Register `store` under `key` in this process, until the returned worker has no more users. The caller is its first user."""
    way = Way(key)
    with _opening:
        new = StoreWorker(store, _PROVIDED_TIMEOUT, on_close=lambda: _forget(way, new))
        _opened[way] = new
        return new


def _open(key: str, timeout: float) -> Store:
    try:
        return open_store(key, timeout=timeout)
    except BudgetStoreUnavailable as error:
        if key.startswith(_LOCAL):
            raise
        # A service must be able to start while its store is unreachable; ON_STORE_ERROR decides about its calls.
        _logger.error("the store does not answer at the start, and is tried again: %s", error)
        return LazyStore(masked(key), lambda seconds: open_store(key, timeout=min(timeout, seconds)), timeout)


def journal_directory(key: str, setting: str | None) -> str | None:
    """Return the directory for charges that the store named by `key` cannot take; None if they wait in memory only."""
    if setting == "off" or key.startswith("memory:"):
        return None
    beside = os.path.dirname(key.removeprefix("sqlite:///")) if key.startswith("sqlite:") else ""
    directory = os.path.abspath(setting or os.path.join(beside, "litellm_budget_journal"))
    place = directory
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK | os.X_OK):
        _logger.warning(
            "LITELLM_BUDGET_JOURNAL: %s cannot be written; charges that the store cannot take would be kept in memory only",
            directory,
        )
    return directory


def _forget(way: Way, worker: StoreWorker) -> None:
    with _opening:
        if _opened.get(way) is worker:
            del _opened[way]


def _after_fork() -> None:
    # If another thread of the parent held this lock at the fork, it would stay locked here.
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
