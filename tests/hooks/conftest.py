"""A registered callback over a private ledger, and an upstream that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litellm
import openai
import pytest

from litellm_budget_plugin import BudgetCallback
from tests.hooks.desk import Desk, register_prices
from tests.upstream import Upstream, Usage

register_prices()
# OpenAI's SDK waits half a second before it tries again.
openai._base_client.INITIAL_RETRY_DELAY = 0.001  # type: ignore[attr-defined]

_CALLBACK_LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
    "_async_input_callback",
)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    # One call of Desk.arguments costs this, at most and in fact: 1,000 output tokens.
    server.usage = Usage(1000, 1000)
    yield server
    server.close()


@pytest.fixture
def open_desk(upstream: Upstream, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    opened: list[BudgetCallback] = []

    def open_one(**settings: Any) -> Desk:
        # A store on a machine that is busy with other tests must not count as unreachable.
        patient = {"store_timeout": 10.0, "store_url": f"sqlite:///{tmp_path}/ledger.db"}
        settings = {"default_limit": "0.05", **patient, **settings}
        callback = BudgetCallback(**settings)
        opened.append(callback)
        litellm.callbacks = [callback]
        return Desk(callback, upstream.url)

    yield open_one
    for callback in opened:
        callback.close()
    for name in _CALLBACK_LISTS:
        setattr(litellm, name, [])
    litellm.cache = None
    litellm.num_retries = None


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()
