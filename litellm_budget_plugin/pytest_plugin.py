"""Fixtures for pytest, which finds them once the package is installed. Tests that do not use them do not import LiteLLM."""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from litellm_budget_plugin.testing import FixedClock, MemoryBudget


@pytest.fixture
def budget_clock() -> FixedClock:
    """The clock of `budget`. It stands still until a test moves it, for example with `advance(days=1)`."""
    from litellm_budget_plugin.testing import FixedClock

    return FixedClock()


@pytest.fixture
def budget(budget_clock: FixedClock) -> Iterator[MemoryBudget]:
    """Budgets on a ledger in memory for one test, in place of the application's own. Nothing is limited before `set_limits`."""
    from litellm_budget_plugin.testing import MemoryBudget

    with MemoryBudget(clock=budget_clock) as opened:
        yield opened
