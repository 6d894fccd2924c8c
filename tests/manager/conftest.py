"""Fixtures: managers with their own ledger, in their own working directory."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin import BudgetManager, BudgetSettings

OpenManager = Callable[..., BudgetManager]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty at first."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def open_manager() -> Iterator[OpenManager]:
    """A function that opens managers with settings given by name; on `memory://` unless a store_url is given."""
    opened: list[BudgetManager] = []

    def make(project: str = "shop", **values: Any) -> BudgetManager:
        settings = BudgetSettings(**{"store_url": "memory://", **values})
        opened.append(BudgetManager(project, settings=settings))
        return opened[-1]

    yield make
    for manager in opened:
        manager.close()


@pytest.fixture(params=["memory://", "sqlite:///ledger.db"])
def manager(request: pytest.FixtureRequest, open_manager: OpenManager) -> BudgetManager:
    """A manager without default limits, on each embedded store."""
    return open_manager(store_url=request.param)


@pytest.fixture
def users(manager: BudgetManager) -> Any:
    """The dictionary of a manager with the users Alice, who has spent money, and Bob."""
    manager.create_budget(10, "alice", "daily")
    manager.create_budget(2, "bob")
    # Imported here, because it imports LiteLLM.
    from tests.manager.answers import spend

    spend(manager, "alice", 0.5)
    return manager.user_dict
