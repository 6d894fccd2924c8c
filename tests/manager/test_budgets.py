"""Intended improvements over LiteLLM's class: creating, counting and rolling budgets."""

from __future__ import annotations

import time

import pytest

from litellm_budget_plugin import BudgetManager
from tests.manager.answers import priced_answer, spend
from tests.manager.conftest import OpenManager

DAY = 86_400


def test_a_budget_begins_when_it_is_created(manager: BudgetManager) -> None:
    before = time.time()
    record = manager.create_budget(10, "alice", "daily")
    assert before - 1e-6 <= record["created_at"] == record["last_updated_at"] <= time.time() + 1e-6


def test_creating_again_keeps_the_spend_and_the_window(manager: BudgetManager) -> None:
    first = manager.create_budget(10, "alice", "daily").copy()
    spend(manager, "alice", 0.5)
    assert manager.create_budget(20, "alice", "daily") == {
        **first,
        "total_budget": 20,
        "current_cost": 0.5,
        "model_cost": {"gpt-4o": 0.5},
    }


def test_another_duration_opens_a_window_and_keeps_the_spend(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice")
    spend(manager, "alice", 0.5)
    before = time.time() - 1e-6
    record = manager.create_budget(10, "alice", "weekly")
    assert record["duration"] == 7
    assert before <= record["created_at"] == record["last_updated_at"]
    assert record["current_cost"] == 0.5
    assert manager.create_budget(10, "alice") == {
        "total_budget": 10,
        "current_cost": 0.5,
        "model_cost": {"gpt-4o": 0.5},
    }


def test_a_given_time_of_creation_sets_the_window_but_keeps_the_spend(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice", "daily")
    spend(manager, "alice", 0.5)
    long_ago = int(time.time()) - 10 * DAY - 60
    record = manager.create_budget(10, "alice", "daily", long_ago)
    assert record["created_at"] == long_ago
    assert record["last_updated_at"] == long_ago + 10 * DAY
    assert record["current_cost"] == 0.5


def test_moving_an_ended_window_does_not_bring_its_spend_back(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice", "daily")
    spend(manager, "alice", 0.5)
    manager.user_dict["alice"]["last_updated_at"] -= 2 * DAY
    assert manager.create_budget(10, "alice", "daily", time.time())["current_cost"] == 0


def test_a_window_of_long_ago_has_ended(manager: BudgetManager) -> None:
    record = manager.create_budget(10, "alice", "weekly", 1_000_000_000.5)
    assert (record["created_at"], record["last_updated_at"]) == (1_000_000_000.5, 1_000_000_000.5)
    assert record["current_cost"] == 0


def test_windows_roll_by_themselves_and_without_drift(manager: BudgetManager) -> None:
    start = manager.create_budget(10, "alice", "daily")["last_updated_at"]
    spend(manager, "alice", 0.5)
    manager.user_dict["alice"]["last_updated_at"] -= 2.5 * DAY
    assert manager.get_current_cost("alice") == 0
    spend(manager, "alice", 0.25)
    record = manager.user_dict["alice"]
    assert record["current_cost"] == 0.25
    assert record["last_updated_at"] == pytest.approx(start - DAY / 2, abs=1e-5)


def test_reset_on_duration_opens_the_window_that_runs(manager: BudgetManager) -> None:
    start = manager.create_budget(10, "alice", "daily")["last_updated_at"]
    spend(manager, "alice", 0.5)
    manager.user_dict["alice"]["last_updated_at"] -= 1.5 * DAY
    assert manager.reset_on_duration("alice") is None
    record = manager.user_dict["alice"]
    assert record["last_updated_at"] == pytest.approx(start - DAY / 2, abs=1e-5)
    assert (record["current_cost"], record["model_cost"]) == (0, {})


def test_update_budget_all_users_rolls_those_whose_window_is_over(manager: BudgetManager) -> None:
    for user, duration in (("alice", "daily"), ("bob", "daily"), ("carol", None)):
        manager.create_budget(10, user, duration)
        spend(manager, user, 0.5)
    manager.user_dict["alice"]["last_updated_at"] -= DAY
    manager.update_budget_all_users()
    assert [manager.get_current_cost(user) for user in ("alice", "bob", "carol")] == [0, 0.5, 0.5]


def test_with_a_default_limit_everybody_is_valid(open_manager: OpenManager) -> None:
    manager = open_manager(default_limit="2.5")
    assert manager.is_valid_user("anybody")
    assert not manager.is_valid_user("") and not manager.is_valid_user("\n")
    assert manager.get_users() == []
    assert (manager.get_total_budget("anybody"), manager.get_current_cost("anybody")) == (2.5, 0)
    assert manager.update_cost("anybody", priced_answer(0.5))["user"]["total_budget"] == 2.5
    assert manager.get_users() == ["anybody"]
    manager.create_budget(1, "alice")
    assert manager.get_users() == ["alice", "anybody"]


def test_a_default_that_is_raised_raises_those_who_follow_it(open_manager: OpenManager) -> None:
    first = open_manager(default_limit=2)
    spend(first, "follower", 0.5)
    first.create_budget(1, "alice")
    second = open_manager(default_limit=3)
    assert [second.get_total_budget(user) for user in ("follower", "alice")] == [3, 1]
    assert second.get_current_cost("follower") == 0.5


def test_a_default_window_in_a_record(open_manager: OpenManager) -> None:
    manager = open_manager(default_limit=2, default_window="month", timezone="Europe/Berlin")
    spend(manager, "alice", 0.5)
    record = manager.user_dict["alice"]
    assert record["window"] == "month@Europe/Berlin"
    assert 27.9 < record["duration"] < 31.1
    assert record["last_updated_at"] <= time.time() < record["last_updated_at"] + record["duration"] * DAY
    assert manager.user_dict["nobody"].keys() == {"total_budget", "duration", "window", "created_at", "last_updated_at"}
    manager.create_budget(5, "alice")
    assert manager.user_dict["alice"].keys() == {"total_budget", "current_cost", "model_cost"}
    assert manager.get_current_cost("alice") == 0.5


def test_managers_of_one_project_share_a_ledger_and_of_two_do_not(open_manager: OpenManager) -> None:
    first, second, other = open_manager(), open_manager(), open_manager("other")
    first.create_budget(10, "alice")
    spend(second, "alice", 0.5)
    assert first.get_current_cost("alice") == 0.5
    assert other.user_dict == {}


def test_spend_counts_against_the_project(open_manager: OpenManager) -> None:
    from litellm_budget_plugin.core.commands import Read

    manager = open_manager(project_limit=100)
    manager.create_budget(10, "alice")
    spend(manager, "alice", 0.5)
    ledger = manager._ledger
    reply = ledger.ask(Read("shop", "project", "shop", defaults=ledger.defaults))
    assert [(state.limit, state.spent) for state in reply.accounts] == [(100_000_000_000, 500_000_000)]
