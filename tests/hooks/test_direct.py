"""The documented CustomLogger methods, called directly."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetExceeded
from tests.hooks.desk import CHAT, WORTH, Desk


def _response(identity: str = "chatcmpl-1") -> litellm.ModelResponse:
    return litellm.ModelResponse(
        id=identity,
        model="gate-chat",
        choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        usage={"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
    )


def _details(user: str = "alice") -> dict[str, Any]:
    return {
        "model": "gate-chat",
        "custom_llm_provider": "openai",
        "call_type": "completion",
        "messages": [{"role": "user", "content": "x"}],
        "user": user,
        "litellm_params": {"metadata": {}},
        "response_cost": 0.0125,
    }


def test_the_pre_call_hook_lets_pass_and_holds_nothing(desk: Desk) -> None:
    data = desk.arguments("alice")
    for _ in range(10):
        assert asyncio.run(desk.callback.async_pre_call_hook(None, None, data, "completion")) is data
    assert (desk.spent("alice"), desk.held("alice")) == (0, 0)


@pytest.mark.parametrize("call_type", ["completion", "acompletion"])
def test_the_pre_call_hook_refuses_who_has_no_room(desk: Desk, call_type: str) -> None:
    for number in range(4):
        desk.callback.log_success_event(_details(), _response(f"chatcmpl-{number}"), None, None)
    with pytest.raises(BudgetExceeded):
        asyncio.run(desk.callback.async_pre_call_hook(None, None, desk.arguments("alice"), call_type))


def test_the_success_event_charges_the_user(desk: Desk) -> None:
    desk.callback.log_success_event(_details(), _response(), None, None)
    assert desk.spent("alice") == WORTH


def test_the_asynchronous_success_event_charges_the_user(desk: Desk) -> None:
    asyncio.run(desk.callback.async_log_success_event(_details(), _response(), None, None))
    assert desk.spent("alice") == WORTH


def test_both_events_of_one_response_charge_once(desk: Desk) -> None:
    desk.callback.log_success_event(_details(), _response(), None, None)
    asyncio.run(desk.callback.async_log_success_event(_details(), _response(), None, None))
    assert desk.spent("alice") == WORTH


def test_an_event_of_a_call_that_the_gate_has_settled_charges_nothing(desk: Desk) -> None:
    response = litellm.completion(**desk.arguments("alice"))
    desk.callback.log_success_event(_details(), response, None, None)
    assert desk.calm("alice") == WORTH


def test_the_price_is_computed_where_the_event_has_none(desk: Desk) -> None:
    details = {**_details(), "model": CHAT, "response_cost": None}
    desk.callback.log_success_event(details, _response(), None, None)
    assert desk.spent("alice") == WORTH


def test_a_failure_event_charges_nothing(desk: Desk) -> None:
    desk.callback.log_failure_event(_details(), None, None, None)
    asyncio.run(desk.callback.async_log_failure_event(_details(), None, None, None))
    assert desk.spent("alice") == 0


def test_a_closed_callback_does_nothing(desk: Desk) -> None:
    state = desk.state
    desk.callback.log_success_event(_details(), _response(), None, None)
    assert state("alice") is not None
    desk.callback.close()
    desk.callback.log_success_event(_details(), _response("chatcmpl-2"), None, None)
    data = desk.arguments("alice", max_tokens=100_000)
    assert asyncio.run(desk.callback.async_pre_call_hook(None, None, data, "completion")) is data
