"""Examples of users' code for type checkers: every public name, called as the documentation shows. They are never run."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import litellm
from typing_extensions import assert_type

from litellm_budget_plugin import (
    BudgetCallback,
    BudgetExceeded,
    BudgetManager,
    BudgetRefused,
    BudgetSettings,
    budget_context,
    budget_run,
    refusal_in,
)
from litellm_budget_plugin.testing import disabled

settings = BudgetSettings(store_url="memory://", user_limits="$1/day, $10 per month")
callback = BudgetCallback(settings=settings)
litellm.callbacks = [callback, BudgetCallback(default_limit="5", store_url="sqlite:///budgets.db")]
assert_type(callback.manager, BudgetManager)
callback.flush()

manager = BudgetManager(project_name="default")
assert_type(manager.set_limits("alice", "$10 per month", "100 calls/hour"), list[str])
assert_type(manager.limits("team:search"), list[str])
assert_type(manager.remaining("alice").usd, Decimal | None)
assert_type(manager.balance("alice"), Decimal)
manager.raise_limit("alice", "5", until=datetime.now(timezone.utc))
manager.top_up("alice", Decimal(10), id="invoice-1")
manager.block("run:42")

with budget_context(user="alice", team="search", tags=["batch"], limits=["$1/day"]):
    pass
with budget_run("$0.50") as run:
    assert_type(run.id, str)
    assert_type(run.spent, Decimal)


async def calls() -> None:
    async with budget_run("$0.50"):
        pass


with disabled():
    pass

try:
    pass
except BudgetExceeded as refused:
    assert_type(refused.subject, str)
    assert_type(refused.remaining, float)
    assert_type(refused.resets_at, datetime | None)
except Exception as error:
    assert_type(refusal_in(error), BudgetRefused | None)
