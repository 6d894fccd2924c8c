"""The examples of https://docs.litellm.ai/docs/budget_manager, changed only to import our class."""

from __future__ import annotations

import litellm
from litellm import completion

from litellm_budget_plugin import BudgetManager
from tests.manager.answers import MESSAGES


def test_quick_start() -> None:
    budget_manager = BudgetManager(project_name="test_project")
    user = "1234"

    if not budget_manager.is_valid_user(user):
        budget_manager.create_budget(total_budget=0.00012, user=user)

    served = []
    for _ in range(10):
        if budget_manager.get_current_cost(user=user) <= budget_manager.get_total_budget(user):
            response = completion(model="gpt-3.5-turbo", messages=MESSAGES, mock_response="Very well, thank you.")
            budget_manager.update_cost(completion_obj=response, user=user)
            served.append(litellm.completion_cost(response))

    # The check comes before the call, so the last call exceeds the limit.
    assert 1 < len(served) < 10
    assert sum(served[:-1]) <= 0.00012 < sum(served)
    assert round(sum(served), 9) == round(budget_manager.get_current_cost(user), 9)
    budget_manager.close()


def test_by_text() -> None:
    budget_manager = BudgetManager(project_name="test_project")
    user = "12345"
    input_text, output_text = "hello world", "it's a sunny day in san francisco"
    budget_manager.create_budget(total_budget=10, user=user, duration="daily")

    budget_manager.update_cost(user=user, model="gpt-3.5-turbo", input_text=input_text, output_text=output_text)
    assert budget_manager.get_current_cost(user) > 0
    budget_manager.close()


def test_a_budget_that_resets() -> None:
    budget_manager = BudgetManager(project_name="test_project")
    user = "1234"
    budget_manager.create_budget(total_budget=10, user=user, duration="daily")
    response = completion(model="gpt-3.5-turbo", messages=MESSAGES, mock_response="Very well.")
    budget_manager.update_cost(completion_obj=response, user=user)
    assert budget_manager.get_current_cost(user) > 0

    one_day_in_seconds = 24 * 60 * 60
    budget_manager.user_dict[user]["last_updated_at"] -= one_day_in_seconds
    budget_manager.update_budget_all_users()

    assert budget_manager.get_current_cost(user) == 0, "the budget did not reset after its duration"
    budget_manager.close()


def test_the_other_spelling_of_client_type() -> None:
    budget_manager = BudgetManager(project_name="test_project", type="local")
    assert budget_manager.client_type == "local"
    budget_manager.close()
