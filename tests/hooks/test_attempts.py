"""Every attempt counts: the ledger equals what the upstream counted as billable, each attempt at its own model's price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm import Router

from litellm_budget_plugin import BudgetExceeded
from tests.hooks.desk import CHAT, CHEAP, DEAR, OTHER, PRICES, WORTH, Desk
from tests.upstream import Upstream


@pytest.fixture
def rich(open_desk: Callable[..., Desk]) -> Desk:
    """A desk whose users have room for every call."""
    return open_desk(default_limit="10")


def _sync(desk: Desk, **more: Any) -> Any:
    answer = litellm.completion(**desk.arguments("alice", **{"model": DEAR, **more}))
    return list(answer) if more.get("stream") else answer


def _async(desk: Desk, **more: Any) -> Any:
    async def call() -> Any:
        answer = await litellm.acompletion(**desk.arguments("alice", **{"model": DEAR, **more}))
        return [chunk async for chunk in answer] if more.get("stream") else answer

    return asyncio.run(call())


WAYS = pytest.mark.parametrize("way", [_sync, _async])
STREAMS = pytest.mark.parametrize("stream", [False, True])


def _check(desk: Desk, upstream: Upstream, served: list[str]) -> None:
    spent = desk.calm("alice")
    assert upstream.served == served
    assert spent == upstream.billed(PRICES)
    assert desk.usage("alice").spent == spent


@WAYS
@STREAMS
def test_failing_attempts_of_num_retries_cost_nothing(
    rich: Desk, upstream: Upstream, way: Callable[..., Any], stream: bool
) -> None:
    upstream.script["gate-dear"].extend([500, 429])
    way(rich, num_retries=3, stream=stream)
    assert upstream.requests == 3
    _check(rich, upstream, ["gate-dear"])


@WAYS
def test_retries_that_all_fail_cost_nothing(rich: Desk, upstream: Upstream, way: Callable[..., Any]) -> None:
    upstream.script["gate-dear"].extend([500] * 20)
    with pytest.raises(litellm.InternalServerError):
        way(rich, num_retries=2)
    _check(rich, upstream, [])


@WAYS
def test_fallbacks_are_charged_at_their_own_price(rich: Desk, upstream: Upstream, way: Callable[..., Any]) -> None:
    upstream.script["gate-dear"].append(500)
    way(rich, fallbacks=[CHEAP])
    _check(rich, upstream, ["gate-cheap"])
    state = rich.state("alice")
    assert state is not None
    assert dict(state.models) == {"gate-cheap": 3_000_000}


@WAYS
def test_fallbacks_that_are_not_needed_cost_nothing(rich: Desk, upstream: Upstream, way: Callable[..., Any]) -> None:
    way(rich, fallbacks=[CHEAP])
    _check(rich, upstream, ["gate-dear"])


@WAYS
@STREAMS
def test_context_window_fallbacks_are_charged_at_their_own_price(
    rich: Desk, upstream: Upstream, way: Callable[..., Any], stream: bool
) -> None:
    upstream.script["gate-dear"].append("context")
    way(rich, context_window_fallback_dict={DEAR: CHEAP}, stream=stream)
    _check(rich, upstream, ["gate-cheap"])


def _router(url: str, models: tuple[str, str] = (DEAR, CHEAP), **more: Any) -> Router:
    deployments = [
        {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "sk", "max_retries": 0}}
        for name, model in zip(("chat", "other"), models)
    ]
    return Router(model_list=deployments, retry_after=0, **more)


ROUTED: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "x"}],
    "max_tokens": 1000,
    "user": "alice",
}


def _router_sync(router: Router, **more: Any) -> Any:
    answer = router.completion(**ROUTED, **more)
    return list(answer) if more.get("stream") else answer


def _router_async(router: Router, **more: Any) -> Any:
    async def call() -> Any:
        answer = await router.acompletion(**ROUTED, **more)
        return [chunk async for chunk in answer] if more.get("stream") else answer

    return asyncio.run(call())


ROUTES = pytest.mark.parametrize("route", [_router_sync, _router_async])


@ROUTES
@STREAMS
def test_router_retries(rich: Desk, upstream: Upstream, route: Callable[..., Any], stream: bool) -> None:
    upstream.script["gate-dear"].extend([500])
    route(_router(upstream.url, num_retries=2), stream=stream)
    _check(rich, upstream, ["gate-dear"])


@ROUTES
@STREAMS
def test_router_fallbacks(rich: Desk, upstream: Upstream, route: Callable[..., Any], stream: bool) -> None:
    upstream.script["gate-dear"].extend([500])
    route(_router(upstream.url, num_retries=0, fallbacks=[{"chat": ["other"]}]), stream=stream)
    _check(rich, upstream, ["gate-cheap"])


@ROUTES
def test_router_context_window_fallbacks(rich: Desk, upstream: Upstream, route: Callable[..., Any]) -> None:
    upstream.script["gate-dear"].extend(["context"])
    route(_router(upstream.url, num_retries=0, context_window_fallbacks=[{"chat": ["other"]}]))
    _check(rich, upstream, ["gate-cheap"])


@ROUTES
def test_a_router_moves_on_to_a_fallback_that_there_is_room_for(
    open_desk: Callable[..., Desk], upstream: Upstream, route: Callable[..., Any]
) -> None:
    desk = open_desk(default_limit="0.0025")
    route(_router(upstream.url, (CHAT, OTHER), num_retries=0, fallbacks=[{"chat": ["other"]}]))
    _check(desk, upstream, ["gate-other"])


@WAYS
def test_each_attempt_is_held_for_and_a_retry_that_finds_no_room_does_not_leave(
    open_desk: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = open_desk(default_limit="0.0125")
    way(desk, model=CHAT)
    assert desk.calm("alice") == WORTH
    upstream.script["gate-chat"].append(500)
    with pytest.raises(BudgetExceeded):
        way(desk, model=CHAT, num_retries=2)
    assert upstream.requests == 1
    assert desk.calm("alice") == WORTH


@WAYS
def test_a_retry_takes_the_place_of_the_attempt_before(
    open_desk: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    """With room for one call only, the next call can use a failed attempt's money."""
    desk = open_desk(default_limit="0.0125")
    upstream.script["gate-chat"].extend([500, 500])
    way(desk, model=CHAT, num_retries=3)
    _check(desk, upstream, ["gate-chat"])
