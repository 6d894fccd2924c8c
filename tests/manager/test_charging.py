"""Charges by hand: together with the callback, repeated, and without a known price."""

from __future__ import annotations

import logging
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetManager
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import ReadUsage, Settle
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.manager.marks import response_marks
from tests.manager.answers import MESSAGES, answer, priced_answer
from tests.manager.conftest import OpenManager


def charged_by_the_callback(manager: BudgetManager, user: str, response: Any) -> None:
    """Charge a response as the callback does."""
    marks = response_marks(user, response)
    subjects = (Subject("user", user),)
    command = Settle(new_id(), "shop", subjects, ("gpt-4o",), 500_000_000, "gpt-4o", aliases=marks)
    manager._ledger.ask(command)


def test_what_the_callback_charged_is_not_charged_again(
    manager: BudgetManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.create_budget(10, "alice")
    response = answer()
    charged_by_the_callback(manager, "alice", response)
    with caplog.at_level(logging.WARNING, "litellm_budget_plugin"):
        for _ in range(3):
            record = manager.update_cost("alice", response)["user"]
            assert record == {"total_budget": 10, "current_cost": 0.5, "model_cost": {"gpt-4o": 0.5}}
    warnings = [found.getMessage() for found in caplog.records if "already charged" in found.getMessage()]
    assert len(warnings) == 1 and "'alice'" in warnings[0]


def test_the_same_response_may_be_charged_to_somebody_else(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice")
    manager.create_budget(10, "bob")
    response = priced_answer(0.25)
    charged_by_the_callback(manager, "alice", response)
    assert manager.update_cost("bob", response)["user"]["current_cost"] == 0.25


def test_integers_are_users_too(manager: BudgetManager) -> None:
    manager.create_budget(10, 7)  # type: ignore[arg-type]
    response = priced_answer(0.25)
    charged_by_the_callback(manager, "7", response)
    manager.update_cost(7, response)  # type: ignore[arg-type]
    assert manager.get_current_cost("7") == 0.5
    assert 7 in manager.user_dict and manager.get_users() == ["7"]


def test_by_hand_the_same_response_charges_again(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice")
    response = priced_answer(0.25)
    manager.update_cost("alice", response)
    manager.update_cost("alice", response)
    assert manager.get_current_cost("alice") == 0.5


def test_charges_that_wait_are_settled_before_anything_is_read(open_manager: OpenManager) -> None:
    manager = open_manager()
    manager.create_budget(10, "alice")
    response = answer()
    worker = manager._ledger.worker
    for look in (
        lambda: manager.get_current_cost("alice"),
        lambda: manager.user_dict["alice"]["current_cost"],
        lambda: next(iter(manager.user_dict.values()))["current_cost"],
        lambda: manager.update_cost("alice", response)["user"]["current_cost"],
    ):
        manager.reset_cost("alice")
        worker.submit(lambda: charged_by_the_callback(manager, "alice", response))
        assert look() == 0.5


def test_beside_a_real_callback(open_manager: OpenManager, caplog: pytest.LogCaptureFixture) -> None:
    from litellm_budget_plugin import BudgetCallback

    callback = BudgetCallback(project="shop", store_url="memory://")
    manager = open_manager()
    manager.create_budget(10, "alice")
    litellm.callbacks = [callback]
    try:
        response = litellm.completion(model="gpt-4o", messages=MESSAGES, user="alice", mock_response="Well.")
        cost = manager.get_current_cost("alice")
        assert cost > 0
        manager.update_cost("alice", response)
        assert manager.get_current_cost("alice") == callback.manager.get_current_cost("alice") == cost
    finally:
        litellm.callbacks = []
        callback.close()
    assert sum("already charged" in record.getMessage() for record in caplog.records) == 1


def test_totals_count_calls_and_tokens(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice")
    response = priced_answer(0.25)
    manager.update_cost("alice", response)
    manager.update_cost("alice", model="gpt-4o", input_text="Hi there", output_text="Hello")
    ((_, usage),) = manager._ledger.ask(ReadUsage("shop", "user", "alice")).rows
    spent = round(manager.get_current_cost("alice") * 1e9)
    assert (usage.spent, usage.calls, usage.input_tokens > 100_000, usage.output_tokens > 0) == (spent, 2, True, True)


def test_an_unknown_price_raises_what_litellm_raises_and_charges_nothing(manager: BudgetManager) -> None:
    manager.create_budget(10, "alice")
    usage = {"prompt_tokens": 400, "completion_tokens": 0, "total_tokens": 400}
    response = litellm.ModelResponse(model="no-such-model-anywhere", usage=usage)
    with pytest.raises(Exception) as theirs:
        litellm.completion_cost(completion_response=response)
    with pytest.raises(type(theirs.value)):
        manager.update_cost("alice", response)
    with pytest.raises(Exception, match="no-such-model-anywhere"):
        manager.update_cost("alice", model="no-such-model-anywhere", input_text="Hi", output_text="Hello")
    assert manager.user_dict == {"alice": {"total_budget": 10}}
