"""A provider that bills what a request allows, and a registered callback over a private ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetCallback
from tests.edge.desk import Edge
from tests.edge.provider import BillingProvider, register_models

register_models()

_CALLBACK_LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
    "_async_input_callback",
)


@pytest.fixture(scope="module")
def one_provider() -> Iterator[BillingProvider]:
    server = BillingProvider()
    yield server
    server.close()


@pytest.fixture
def provider(one_provider: BillingProvider) -> BillingProvider:
    """The module's provider, reset."""
    one_provider.clear()
    one_provider.watch = len
    one_provider.script.clear()
    return one_provider


@pytest.fixture
def open_edge(provider: BillingProvider) -> Iterator[Callable[..., Edge]]:
    """Register a callback with a ledger of its own. The settings are the callback's."""
    opened: list[BudgetCallback] = []

    def open_one(**settings: Any) -> Edge:
        callback = BudgetCallback(**{"default_limit": "0.005", "store_url": "memory://", **settings})
        opened.append(callback)
        litellm.callbacks = [callback]
        return Edge(callback, provider)

    yield open_one
    for callback in opened:
        callback.close()
    for name in _CALLBACK_LISTS:
        setattr(litellm, name, [])
    litellm.cache = None
    litellm.num_retries = None


@pytest.fixture
def edge(open_edge: Callable[..., Edge]) -> Edge:
    return open_edge()
