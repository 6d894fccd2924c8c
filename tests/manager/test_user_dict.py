"""user_dict and its records behave like dictionaries, and write every change to the ledger."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from typing import Any

import pytest

from litellm_budget_plugin import BudgetManager
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget
from tests.manager.answers import priced_answer, spend
from tests.manager.conftest import OpenManager

DAY = 86_400
JUST_NOW = float(int(time.time()))


def test_json_of_an_empty_dictionary(manager: BudgetManager) -> None:
    for options in ({}, {"indent": 4}, {"sort_keys": True}):
        assert json.loads(json.dumps(manager.user_dict, **options)) == {}


@pytest.mark.parametrize("options", [{}, {"indent": 4}, {"sort_keys": True}, {"separators": (",", ":")}], ids=str)
def test_json(users: Any, options: dict[str, Any]) -> None:
    plain = {"alice": dict(users["alice"]), "bob": {"total_budget": 2.0}}
    assert json.dumps(users, **options) == json.dumps(plain, **options)
    assert json.dumps(users["alice"], **options) == json.dumps(plain["alice"], **options)


def test_it_is_live(users: Any, manager: BudgetManager) -> None:
    manager.create_budget(3, "carol")
    spend(manager, "alice", 0.25)
    assert list(users) == ["alice", "bob", "carol"]
    assert users["alice"]["current_cost"] == 0.75
    assert manager.user_dict is users


def test_copies_are_plain_and_change_nothing(users: Any) -> None:
    for make in (copy.copy, copy.deepcopy, dict.copy, lambda value: pickle.loads(pickle.dumps(value)), dict):
        for original in (users, users["alice"], users["alice"]["model_cost"]):
            if make is dict.copy:
                copied = original.copy()
            else:
                copied = make(original)
            assert type(copied) is dict and copied == original
            copied.clear()
    assert users["alice"]["model_cost"] == {"gpt-4o": 0.5}
    assert len(users) == 2


def test_repr_is_a_dictionarys(users: Any) -> None:
    assert repr(users) == repr(users.copy())
    with pytest.raises(TypeError):
        hash(users)


def test_what_methods_return_writes_through(users: Any, manager: BudgetManager) -> None:
    manager.create_budget(3, "carol")["total_budget"] = 4
    manager.update_cost("carol", priced_answer(0.5))["user"]["total_budget"] += 1
    assert manager.get_total_budget("carol") == 5
    for record in users.values():
        record["total_budget"] = 7
    assert [record["total_budget"] for _, record in users.items()] == [7, 7, 7]


def test_the_whole_dictionary_can_be_replaced(users: Any, manager: BudgetManager) -> None:
    kept = {
        "bob": {"total_budget": 5.0},
        "dora": {"total_budget": 1, "duration": 7, "created_at": JUST_NOW, "last_updated_at": JUST_NOW},
    }
    manager.user_dict = kept  # type: ignore[assignment]  # mypy takes the type of the getter
    assert users == kept
    manager.user_dict = manager.user_dict
    assert users == kept
    manager.user_dict = {}  # type: ignore[assignment]
    assert users == {}


def test_deleting_forgets_the_spend(users: Any, manager: BudgetManager) -> None:
    del users["alice"]
    assert manager.create_budget(10, "alice") == {"total_budget": 10}


def test_under_a_default_limit_everybody_is_in_but_only_the_known_are_listed(open_manager: OpenManager) -> None:
    manager = open_manager(default_limit=2)
    users = manager.user_dict
    assert "alice" in users and users.get("alice") == users["alice"] == {"total_budget": 2}
    assert len(users) == 0 and users == {}
    users["alice"]["total_budget"] = 3
    assert users == {"alice": {"total_budget": 3}}
    spend(manager, "alice", 0.5)
    del users["alice"]
    assert users == {} and users["alice"] == {"total_budget": 2}
    spend(manager, "bob", 0.5)
    manager.user_dict = manager.user_dict
    del users["bob"]["model_cost"]["gpt-4o"]
    assert open_manager(default_limit=5).get_total_budget("bob") == 5


def test_an_explicitly_unlimited_budget_is_infinity(open_manager: OpenManager) -> None:
    manager = open_manager(default_limit=2)
    put = PutBudget("p", "shop", Subject("user", "alice"), limit=None)
    manager._ledger.ask(put)
    assert manager.get_total_budget("alice") == math.inf
    manager.user_dict["bob"] = manager.user_dict["alice"]
    assert manager.get_total_budget("bob") == math.inf
