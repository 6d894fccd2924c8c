"""Ways to keep LiteLLM calls within a budget: LiteLLM's own, the usual recipe, published packages, and this one.

Each is a context manager that takes the limit in US dollars, and yields the function that makes the application's calls. It is used
as its documentation says, with the model's true price, and restores LiteLLM afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin import BudgetCallback

MODEL = "bench-chat"
OUTPUT_PRICE = 12.5e-6
"""US dollars for each output token; the prompt costs nothing."""
Call = Callable[[dict[str, Any]], Any]


@contextmanager
def _clean_litellm() -> Iterator[None]:
    try:
        yield
    finally:
        litellm.logging_callback_manager._reset_all_callbacks()
        litellm.max_budget, litellm._current_cost = 0.0, 0.0


def _complete(arguments: dict[str, Any]) -> Any:
    return litellm.completion(**arguments)


@contextmanager
def max_budget(limit: float) -> Iterator[Call]:
    """Use LiteLLM's limit for the whole spend of a process."""
    with _clean_litellm():
        litellm.max_budget = limit
        yield _complete


@contextmanager
def budget_manager_loop(limit: float) -> Iterator[Call]:
    """Use the loop in the documentation of LiteLLM's BudgetManager: check, call, update."""
    manager = litellm.BudgetManager(project_name="benchmark")
    manager.create_budget(total_budget=limit, user="alice")

    def call(arguments: dict[str, Any]) -> None:
        if manager.get_current_cost(user="alice") <= manager.get_total_budget("alice"):
            response = litellm.completion(**arguments)
            manager.update_cost(completion_obj=response, user="alice")

    yield call


@contextmanager
def raising_callback(limit: float) -> Iterator[Call]:
    """Use the usual recipe: a callback that adds up costs, and raises before a call when they have reached the limit."""

    class Recipe(CustomLogger):  # type: ignore[misc]  # LiteLLM's classes have type Any here
        spent = 0.0

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            if self.spent >= limit:
                raise RuntimeError("budget exceeded")

        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            self.spent += kwargs.get("response_cost") or 0.0

    with _clean_litellm():
        litellm.callbacks = [Recipe()]
        yield _complete


@contextmanager
def litellm_cost_tracker(limit: float) -> Iterator[Call]:
    """Use litellm-cost-tracker, a LiteLLM callback with `raise_on_budget`."""
    tracker = import_module("llm_cost").CostTracker(budget=limit, raise_on_budget=True)
    with _clean_litellm():
        litellm.callbacks = [tracker]
        yield _complete


@contextmanager
def shekel(limit: float) -> Iterator[Call]:
    """Use shekel: `with budget(max_usd=...)` replaces `litellm.completion`, and finds the budget in the context."""
    prices = {"input": 0.0, "output": OUTPUT_PRICE * 1000}
    with import_module("shekel").budget(max_usd=limit, price_per_1k_tokens=prices):
        context = copy_context()
        # Threads do not inherit a context, so without this copy the package would find no budget.
        yield lambda arguments: context.copy().run(_complete, arguments)


@contextmanager
def agentbudget(limit: float) -> Iterator[Call]:
    """Use agentbudget: every answer passes through `session.wrap`."""
    package = import_module("agentbudget")
    package.register_model(MODEL, input_price_per_million=0.0, output_price_per_million=OUTPUT_PRICE * 1e6)
    # Otherwise its loop detector would stop equal calls for another reason than money.
    with package.AgentBudget(max_spend=limit, max_repeated_calls=10**9).session() as session:
        yield lambda arguments: session.wrap(litellm.completion(**arguments))


def _floe_guard(limit: float) -> Any:
    price = import_module("floe_guard").ManualPrice(input_cost_per_token=0.0, output_cost_per_token=OUTPUT_PRICE)
    return import_module("floe_guard").BudgetGuard(limit, price_overrides={f"openai/{MODEL}": price, MODEL: price})


@contextmanager
def floe_guard(limit: float) -> Iterator[Call]:
    """Use floe-guard's wrapper in place of `litellm.completion`, with one guard for the user."""
    guard = _floe_guard(limit)
    complete = import_module("floe_guard.integrations.litellm").guarded_completion
    yield lambda arguments: complete(guard, **arguments)


@contextmanager
def floe_guard_callback(limit: float) -> Iterator[Call]:
    """Use floe-guard's callback in `litellm.callbacks`, for call sites that cannot be wrapped."""
    with _clean_litellm():
        made = import_module("floe_guard.integrations.litellm").budget_guard_callback
        litellm.callbacks = [made(_floe_guard(limit))]
        yield _complete


@contextmanager
def this_package(limit: float) -> Iterator[Call]:
    """Use litellm-budget-plugin: register the callback, and change nothing else."""
    callback = BudgetCallback(store_url=f"sqlite:///{Path('overspend.db').resolve()}", default_limit=limit)
    with _clean_litellm():
        litellm.callbacks = [callback]
        try:
            yield _complete
        finally:
            callback.close()
            for file in Path().glob("overspend.db*"):
                file.unlink()
