"""A refusal says what happened, and affects no other call."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import timezone
from typing import Any

import litellm
import pytest
from litellm import Router

from litellm_budget_plugin import BudgetExceeded, BudgetRefused
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import PutBudget
from tests.hooks.desk import CHAT, WORTH, Desk
from tests.upstream import Upstream


def _refused(desk: Desk, **more: Any) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        litellm.completion(**desk.arguments("alice", **more))
    return caught.value


def test_it_says_who_has_spent_what_and_when_that_ends(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(default_limit="0.0125", default_window="month")
    litellm.completion(**desk.arguments("alice"))
    error = _refused(desk)
    assert isinstance(error, litellm.BudgetExceededError)
    assert isinstance(error, BudgetRefused)
    assert (error.status_code, error.scope, error.subject, error.unit) == (422, "user", "alice", "usd")
    assert (error.limit, error.spent, error.held, error.requested) == (0.0125, 0.0125, 0.0, 0.0125)
    assert error.remaining == 0.0
    assert (error.current_cost, error.max_budget) == (0.0125, 0.0125)
    assert error.resets_at is not None
    assert error.resets_at.tzinfo is timezone.utc
    assert str(error) == (
        "user 'alice' has spent $0.0125 of $0.0125 per month; this openai/gate-chat call may cost "
        f"$0.0125; resets {error.resets_at:%Y-%m-%d %H:%M} UTC"
    )


def test_it_says_when_only_calls_in_flight_stand_in_the_way(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="0.0125")
    stream = litellm.completion(**desk.arguments("alice", stream=True))
    next(stream)
    error = _refused(desk)
    assert error.reason == "held"
    assert (error.spent, error.held) == (0.0, 0.0125)
    assert "only holds of calls in flight prevent it" in str(error)
    for _ in stream:
        pass
    assert desk.calm("alice") == WORTH


def test_a_dropped_call_does_not_refuse_the_next_one(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    """Its money is released when its end is known, without a flush."""

    async def calls() -> None:
        for _ in range(5):
            stream = await litellm.acompletion(**desk.arguments("alice", stream=True))
            async for _chunk in stream:
                break
            del stream, _chunk

    desk = open_desk(default_limit="0.013")
    asyncio.run(calls())
    assert upstream.requests == 5


def test_the_project_limit_counts_everybody(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="1", project_limit="0.025")
    litellm.completion(**desk.arguments("alice"))
    litellm.completion(**desk.arguments("bob"))
    with pytest.raises(BudgetExceeded, match="project 'default' has spent"):
        litellm.completion(**desk.arguments("carol"))
    assert upstream.requests == 2


def test_a_project_limit_that_somebody_sets_while_the_service_runs_counts(desk: Desk, upstream: Upstream) -> None:
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    litellm.completion(**desk.arguments("alice"))
    ledger.ask(PutBudget("c", ledger.project, Subject("project", ledger.project), limit=WORTH))
    litellm.completion(**desk.arguments("bob"))
    with pytest.raises(BudgetExceeded) as refused:
        litellm.completion(**desk.arguments("carol"))
    assert (refused.value.scope, upstream.requests) == ("project", 2)


def test_it_can_be_pickled(desk: Desk) -> None:
    error = _refused(desk, max_tokens=100_000)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is BudgetExceeded
    assert (str(copy), copy.limit, copy.status_code) == (str(error), error.limit, 422)


def test_its_status_does_not_follow_litellms_setting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "budget_exceeded_status_code", 429, raising=False)
    assert _refused(desk, max_tokens=100_000).status_code == 422


def _deployments(url: str) -> list[dict[str, Any]]:
    return [
        {
            "model_name": "chat",
            "litellm_params": {"model": CHAT, "api_base": url, "api_key": f"sk-{n}", "max_retries": 0},
            "model_info": {"id": f"deployment-{n}"},
        }
        for n in range(3)
    ]


ROUTED: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}


def _failures(router: Router) -> list[Any]:
    counted = router.cache.in_memory_cache.cache_dict
    return [key for key in counted if "fail" in str(key) or "cooldown" in str(key)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fifty_refusals_harm_nobody_else(
    open_desk: Callable[..., Desk], upstream: Upstream, asynchronous: bool
) -> None:
    desk = open_desk(default_limit="0.0125", store_timeout=5)
    router = Router(model_list=_deployments(upstream.url), allowed_fails=0, cooldown_time=600, num_retries=2)

    async def one(user: str) -> Any:
        return await router.acompletion(**ROUTED, user=user)

    async def all_of_them() -> list[Any]:
        await one("alice")
        refusals = await asyncio.gather(*[one("alice") for _ in range(50)], return_exceptions=True)
        served = [await one(f"bob-{number}") for number in range(30)]
        return refusals + served

    def sync_one(user: str) -> Any:
        try:
            return router.completion(**ROUTED, user=user)
        except BudgetExceeded as error:
            return error

    if asynchronous:
        results = asyncio.run(all_of_them())
    else:
        sync_one("alice")
        results = [sync_one("alice") for _ in range(50)] + [sync_one(f"bob-{number}") for number in range(30)]
    refusals, served = results[:50], results[50:]
    assert all(type(error) is BudgetExceeded for error in refusals)
    assert upstream.requests == 31
    assert {answer._hidden_params["model_id"] for answer in served} == {f"deployment-{n}" for n in range(3)}
    assert _failures(router) == []
    assert desk.calm("alice") == WORTH


def test_a_refused_batch_entry_is_an_entry_of_the_list(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="0.0125", store_timeout=5)
    arguments = desk.arguments("alice")
    del arguments["messages"]
    messages = [[{"role": "user", "content": "x"}] for _ in range(3)]
    results = litellm.batch_completion(messages=messages, **arguments)
    assert sorted(isinstance(result, BudgetExceeded) for result in results) == [False, True, True]
    assert upstream.requests == 1
