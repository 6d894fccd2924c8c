"""The store of a URL, its settler and its journal: opened once in a process, and shared by all ledgers that name it."""

from __future__ import annotations

import logging
import os
import threading

from litellm_budget_plugin.errors import BudgetStoreUnavailable
from litellm_budget_plugin.manager.journal import Journal
from litellm_budget_plugin.manager.settler import Settler
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.protocol import Store
from litellm_budget_plugin.stores.registry import masked, open_store, place_of
from litellm_budget_plugin.stores.reopening import Reopening

_logger = logging.getLogger("litellm_budget_plugin")
_LOCAL = ("memory:", "sqlite:")


def store_key(url: str) -> str:
    """The URL with a relative path made absolute, so that it names one store whatever the working directory."""
    prefix = "sqlite:///"
    if url.startswith(prefix) and url != prefix and not url.startswith(prefix + "/"):
        return prefix + os.path.abspath(url.removeprefix(prefix))
    return url


class _Opened:
    __slots__ = ("settler", "users")

    def __init__(self, settler: Settler) -> None:
        self.settler = settler
        self.users = 0


_opened: dict[str, _Opened] = {}
_opening = threading.Lock()


def acquire(key: str, timeout: float, settings: BudgetSettings) -> Settler:
    """The settler of the store that `key` (see `store_key`) names; `let_go` of it. Raises what `open_store` does, but for a
    networked store that does not answer.
    """
    with _opening:
        opened = _opened.get(key)
        if opened is None:
            directory = journal_directory(key, settings.journal)
            journal = None if directory is None else Journal(directory, place_of(key))
            settler = Settler(_open(key, timeout), timeout, journal, settings.journal_limit)
            opened = _opened[key] = _Opened(settler)
        opened.users += 1
        return opened.settler


def _open(key: str, timeout: float) -> Store:
    try:
        return open_store(key, timeout=timeout)
    except BudgetStoreUnavailable as error:
        if key.startswith(_LOCAL):
            raise
        # A service must be able to start while its store is away; its calls fare by ON_STORE_ERROR.
        _logger.error("the store does not answer at the start, and is tried again: %s", error)
        return Reopening(masked(key), lambda seconds: open_store(key, timeout=min(timeout, seconds)), timeout)


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


def let_go(key: str) -> None:
    """One ledger needs it no longer; with the last one it is closed."""
    with _opening:
        opened = _opened[key]
        opened.users -= 1
        if opened.users:
            return
        del _opened[key]
    opened.settler.close()


def _after_fork() -> None:
    # Another thread of the parent may have been opening a store, and its lock would stay locked here.
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
