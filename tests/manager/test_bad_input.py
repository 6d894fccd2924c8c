"""Input that cannot be accepted raises a clear error, and changes nothing."""

from __future__ import annotations

import math
import subprocess
from typing import Any

import pytest

from litellm_budget_plugin import BudgetInputError, BudgetManager, BudgetSettings, BudgetSettingsError, BudgetStoreError
from tests.manager.conftest import OpenManager
from tests.manager.programs import command


@pytest.mark.parametrize("total", [-1, -0.01, math.nan, math.inf, 1e7, 10**30, True, None, "much", [1]], ids=repr)
def test_bad_budgets(manager: BudgetManager, total: Any) -> None:
    with pytest.raises(BudgetInputError, match="total_budget"):
        manager.create_budget(total, "alice")
    assert manager.user_dict == {}


@pytest.mark.parametrize(
    "user", ["", " alice", "a\nb", "x" * 257, None, 1.5, b"alice", ("a",), True, "\ud800"], ids=repr
)
def test_bad_ids(manager: BudgetManager, user: Any) -> None:
    with pytest.raises(BudgetInputError, match="user must"):
        manager.create_budget(1, user)
    assert not manager.is_valid_user(user)
    for look in (manager.get_total_budget, manager.get_current_cost, manager.get_model_cost, manager.reset_cost):
        with pytest.raises(KeyError):
            look(user)
    assert manager.user_dict == {}


@pytest.mark.parametrize("created_at", [-1, math.nan, math.inf, 1e12, "today", True], ids=repr)
def test_bad_times(manager: BudgetManager, created_at: Any) -> None:
    with pytest.raises(BudgetInputError, match="created_at must be seconds since 1970"):
        manager.create_budget(1, "alice", "daily", created_at)
    assert manager.user_dict == {}


@pytest.mark.parametrize("spelling", ["client_type", "type"])
def test_a_client_without_an_endpoint(spelling: str) -> None:
    with pytest.raises(BudgetSettingsError, match="API_BASE, or api_base= of BudgetManager"):
        BudgetManager("shop", **{spelling: "client"})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["hosted", "client"])
def test_an_endpoint_and_a_store_url(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_BUDGET_STORE_URL", "memory://")
    with pytest.raises(BudgetSettingsError, match="exclude each other"):
        BudgetManager("shop", client_type=kind, api_base="http://127.0.0.1:1")


def test_an_endpoint_that_is_no_url() -> None:
    with pytest.raises(BudgetSettingsError, match="API_BASE: it must be the URL of an endpoint"):
        BudgetManager("shop", client_type="client", api_base="budgets.example.com")


def test_bad_constructor_arguments() -> None:
    with pytest.raises(BudgetSettingsError, match="CLIENT_TYPE"):
        BudgetManager("shop", client_type="redis")
    with pytest.raises(BudgetSettingsError, match="one argument"):
        BudgetManager("shop", client_type="hosted", type="client")
    with pytest.raises(BudgetSettingsError, match="PROJECT"):
        BudgetManager("")


def test_the_constructors_arguments_are_kept(open_manager: OpenManager) -> None:
    settings = BudgetSettings(store_url="memory://", project="ignored")
    manager = BudgetManager("shop", "local", "http://here", {"X": "y"}, settings=settings)
    assert (manager.project_name, manager.client_type) == ("shop", "local")
    assert (manager.api_base, manager.headers) == ("http://here", {"X": "y"})
    manager.create_budget(1, "alice")
    assert open_manager("shop").is_valid_user("alice")
    manager.close()
    manager.close()


def test_a_closed_manager_says_so() -> None:
    manager = BudgetManager("shop")
    manager.close()
    with pytest.raises(BudgetStoreError, match="closed"):
        manager.get_users()


def test_making_a_manager_does_not_import_litellm() -> None:
    program = "from litellm_budget_plugin import BudgetManager; m = BudgetManager('p'); m.create_budget(1, 'a')"
    subprocess.run(command(f"{program}; m.save_data(); assert 'litellm' not in sys.modules"), check=True)
