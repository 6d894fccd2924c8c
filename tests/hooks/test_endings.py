"""Every end of a call releases its hold and charges the right amount."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import openai
import pytest
from litellm import Router
from litellm.caching.caching import Cache
from litellm.integrations.custom_logger import CustomLogger

from litellm_budget_plugin import BudgetExceeded
from litellm_budget_plugin.hooks import settlement
from litellm_budget_plugin.hooks.call import Call
from litellm_budget_plugin.hooks.call_types import request_of
from tests.hooks.desk import CHAT, INPUT, WORTH, Desk
from tests.upstream import Upstream, Usage


def _tokens(text: str) -> int:
    return len(litellm.encode(model="gpt-4", text=text))


@pytest.fixture
def rich(open_desk: Callable[..., Desk]) -> Desk:
    """A desk whose users have room for every call."""
    return open_desk(default_limit="10")


def test_a_dropped_stream_costs_what_was_received(rich: Desk, upstream: Upstream) -> None:
    stream = litellm.completion(**rich.arguments("alice", stream=True))
    received = "".join(next(stream).choices[0].delta.content or "" for _ in range(2))
    del stream
    assert rich.calm("alice") == _tokens(received) * 12_500
    assert received


def test_a_dropped_asynchronous_stream_costs_what_was_received(rich: Desk, upstream: Upstream) -> None:
    async def call() -> str:
        stream = await litellm.acompletion(**rich.arguments("alice", stream=True))
        received = ""
        async for chunk in stream:
            received += chunk.choices[0].delta.content or ""
            if len(received) > 8:
                break
        return received

    received = asyncio.run(call())
    assert rich.calm("alice") == _tokens(received) * 12_500


def test_a_stream_that_is_never_read_costs_its_input(rich: Desk, upstream: Upstream) -> None:
    stream = litellm.completion(**rich.arguments("alice", model=INPUT, stream=True))
    del stream
    spent = rich.calm("alice")
    assert 1_000 <= spent <= 20_000


@pytest.fixture
def no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's success events are not reliable: they come late, or not at all."""
    monkeypatch.setattr(settlement, "_succeeded", lambda *_: None)


@pytest.mark.usefixtures("no_events")
def test_a_stream_is_charged_by_its_last_chunk(rich: Desk, upstream: Upstream) -> None:
    """After reading a stream to its end, the caller sees its cost in the ledger without waiting."""
    for _ in litellm.completion(**rich.arguments("alice", stream=True)):
        pass
    assert (rich.spent("alice"), rich.held("alice")) == (WORTH, 0)


@pytest.mark.usefixtures("no_events")
def test_an_answer_is_charged_before_the_caller_has_it(rich: Desk, upstream: Upstream) -> None:
    litellm.completion(**rich.arguments("alice"))
    assert (rich.spent("alice"), rich.held("alice")) == (WORTH, 0)


def test_a_stream_without_usage_is_counted_from_its_text(rich: Desk, upstream: Upstream) -> None:
    upstream.report_stream_usage = False
    chunks = list(litellm.completion(**rich.arguments("alice", stream=True)))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert rich.calm("alice") == _tokens(text) * 12_500


def test_a_cancelled_task_costs_its_input(rich: Desk, upstream: Upstream) -> None:
    async def call() -> None:
        task = asyncio.create_task(litellm.acompletion(**rich.arguments("alice", model=INPUT)))
        while not upstream.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    upstream.script["gate-input"].append("hang")
    asyncio.run(call())
    assert 1_000 <= rich.calm("alice") <= 20_000


# The warning about LiteLLM's coroutine that is never awaited would keep that coroutine alive, and the call with it.
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_task_cancelled_before_anything_was_sent_costs_nothing(rich: Desk, upstream: Upstream) -> None:
    async def call() -> None:
        task = asyncio.create_task(litellm.acompletion(**rich.arguments("alice", model=INPUT)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(call())
    assert (upstream.requests, rich.calm("alice")) == (0, 0)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_http_error_costs_nothing(rich: Desk, upstream: Upstream, status: int) -> None:
    upstream.script["gate-input"].append(status)
    with pytest.raises(Exception, match="scripted"):
        litellm.completion(**rich.arguments("alice", model=INPUT))
    assert rich.calm("alice") == 0
    assert rich.usage("alice").spent == 0


@pytest.mark.parametrize("status", [400, 500])
def test_an_http_error_costs_nothing_in_a_task(rich: Desk, upstream: Upstream, status: int) -> None:
    upstream.script["gate-input"].append(status)
    with pytest.raises(Exception, match="scripted"):
        asyncio.run(litellm.acompletion(**rich.arguments("alice", model=INPUT)))
    assert rich.calm("alice") == 0


def _fails_sync(desk: Desk, **more: Any) -> None:
    with pytest.raises((litellm.Timeout, litellm.APIConnectionError, litellm.InternalServerError)):
        litellm.completion(**desk.arguments("alice", model=INPUT, **more))


def _fails_async(desk: Desk, **more: Any) -> None:
    with pytest.raises((litellm.Timeout, litellm.APIConnectionError, litellm.InternalServerError)):
        asyncio.run(litellm.acompletion(**desk.arguments("alice", model=INPUT, **more)))


FAILS = pytest.mark.parametrize("fails", [_fails_sync, _fails_async])


@FAILS
def test_a_timeout_costs_its_input(rich: Desk, upstream: Upstream, fails: Callable[..., None]) -> None:
    upstream.script["gate-input"].append("hang")
    fails(rich, timeout=0.2)
    assert upstream.requests == 1
    assert 1_000 <= rich.calm("alice") <= 20_000


@FAILS
def test_a_lost_connection_costs_its_input(rich: Desk, upstream: Upstream, fails: Callable[..., None]) -> None:
    upstream.script["gate-input"].append("cut")
    fails(rich)
    assert 1_000 <= rich.calm("alice") <= 20_000


@FAILS
def test_a_connection_that_was_never_made_costs_nothing(
    rich: Desk, upstream: Upstream, fails: Callable[..., None]
) -> None:
    fails(rich, api_base="http://127.0.0.1:1/v1")
    assert rich.calm("alice") == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_cut_in_the_middle_costs_what_was_received(rich: Desk, upstream: Upstream, asynchronous: bool) -> None:
    upstream.script["gate-chat"].append("cut-stream")
    received: list[str] = []

    async def read() -> None:
        async for chunk in await litellm.acompletion(**rich.arguments("alice", stream=True)):
            received.append(chunk.choices[0].delta.content or "")

    def read_sync() -> None:
        for chunk in litellm.completion(**rich.arguments("alice", stream=True)):
            received.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError):
        asyncio.run(read()) if asynchronous else read_sync()
    assert rich.calm("alice") == _tokens("".join(received)) * 12_500
    assert received


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cached_answer_costs_nothing(rich: Desk, upstream: Upstream, asynchronous: bool) -> None:
    litellm.cache = Cache()
    for _ in range(3):
        arguments = rich.arguments("alice", caching=True)
        if asynchronous:
            asyncio.run(litellm.acompletion(**arguments))
        else:
            litellm.completion(**arguments)
    assert upstream.requests == 1
    assert rich.calm("alice") == WORTH


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cached_stream_costs_nothing(rich: Desk, upstream: Upstream, asynchronous: bool) -> None:
    async def read() -> None:
        async for _ in await litellm.acompletion(**rich.arguments("alice", stream=True, caching=True)):
            pass

    litellm.cache = Cache()
    for _ in range(4):
        if asynchronous:
            asyncio.run(read())
        else:
            list(litellm.completion(**rich.arguments("alice", stream=True, caching=True)))
    assert rich.calm("alice") == upstream.requests * WORTH


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_dropped_router_stream_costs_what_was_received(rich: Desk, upstream: Upstream, asynchronous: bool) -> None:
    routed = Router(
        model_list=[{"model_name": "c", "litellm_params": {"model": CHAT, "api_base": upstream.url, "api_key": "sk"}}]
    )
    arguments: dict[str, Any] = {
        "model": "c",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1000,
        "user": "alice",
        "stream": True,
    }

    async def read() -> str:
        received = ""
        async for chunk in await routed.acompletion(**arguments):
            received += chunk.choices[0].delta.content or ""
            if len(received) > 8:
                break
        return received

    def read_sync() -> str:
        stream = routed.completion(**arguments)
        return "".join(next(stream).choices[0].delta.content or "" for _ in range(2))

    received = asyncio.run(read()) if asynchronous else read_sync()
    assert received
    assert rich.calm("alice") == _tokens(received) * 12_500


@pytest.mark.usefixtures("no_events")
def test_a_router_stream_is_charged_by_its_last_chunk(rich: Desk, upstream: Upstream) -> None:
    async def read() -> None:
        routed = Router(
            model_list=[
                {"model_name": "c", "litellm_params": {"model": CHAT, "api_base": upstream.url, "api_key": "sk"}}
            ]
        )
        messages = [{"role": "user", "content": "x"}]
        async for _ in await routed.acompletion(
            model="c", messages=messages, max_tokens=1000, user="alice", stream=True
        ):
            pass
        assert (rich.spent("alice"), rich.held("alice")) == (WORTH, 0)

    asyncio.run(read())


@pytest.mark.parametrize("odd", ["\ud800", "x" * 5000, "nul\x00"])
def test_no_answer_is_too_odd_to_be_charged(rich: Desk, odd: str) -> None:
    response = litellm.ModelResponse(
        id=odd, model=odd, usage={"prompt_tokens": 10**30, "completion_tokens": 1, "total_tokens": 1}
    )
    response._hidden_params["response_cost"] = 0.0125
    ledger = rich.callback.budget_ledger
    assert ledger is not None
    call = Call(ledger, ledger.principal("alice"), request_of("completion", rich.arguments("alice")))
    call.admit()
    call.answered(response, 0.0125)
    assert (rich.spent("alice"), rich.held("alice")) == (WORTH, 0)


def test_a_dearer_model_than_the_gate_saw_is_held_for(
    open_desk: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of other code can change a request after the gate."""

    class Theirs(CustomLogger):  # type: ignore[misc]
        async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any]:
            return {**kwargs, "max_tokens": 4000}

    desk = open_desk(default_limit="0.0125")
    litellm.callbacks.append(Theirs())
    with pytest.raises(BudgetExceeded):
        asyncio.run(litellm.acompletion(**desk.arguments("alice")))
    assert upstream.requests == 0
    assert desk.calm("alice") == 0


def test_an_alias_is_priced_as_what_it_stands_for(
    open_desk: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "model_alias_map", {"fast": CHAT})
    desk = open_desk(default_limit="0.0125")
    litellm.completion(**desk.arguments("alice", model="fast"))
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice", model="fast"))
    assert (upstream.requests, desk.calm("alice")) == (1, WORTH)


def test_a_call_that_outlives_its_callback_is_charged(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    first = open_desk(default_limit="10")
    stream = litellm.completion(**first.arguments("alice", stream=True))
    next(stream)
    first.callback.close()
    second = open_desk(default_limit="10")
    for _ in stream:
        pass
    assert second.calm("alice") == WORTH


def test_a_call_without_a_hold_that_outlives_its_callback_is_charged(
    open_desk: Callable[..., Desk], upstream: Upstream
) -> None:
    first = open_desk(default_limit="0", mode="shadow")
    stream = litellm.completion(**first.arguments("alice", stream=True))
    next(stream)
    first.callback.close()
    second = open_desk(default_limit="10")
    for _ in stream:
        pass
    assert second.calm("alice") == WORTH


def test_a_text_stream_of_a_chat_model_is_charged_by_its_usage(rich: Desk, upstream: Upstream) -> None:
    upstream.usage = Usage(10, 5)
    list(litellm.text_completion(**rich.text("alice", model=CHAT, stream=True)))
    assert rich.calm("alice") == 5 * 12_500


def test_embeddings_and_text_are_charged(rich: Desk, upstream: Upstream) -> None:
    litellm.embedding(**rich.embedding("alice"))
    litellm.text_completion(**rich.text("alice"))
    for _ in litellm.text_completion(**rich.text("alice", stream=True)):
        pass
    asyncio.run(litellm.aembedding(**rich.embedding("alice")))
    assert rich.calm("alice") == 4 * WORTH


def test_calls_that_are_not_logged_are_charged(rich: Desk, upstream: Upstream) -> None:
    litellm.completion(**rich.arguments("alice", **{"no-log": True}))
    assert rich.calm("alice") == WORTH


def test_a_mock_response_is_charged_as_litellm_prices_it(rich: Desk) -> None:
    response = litellm.completion(**rich.arguments("alice", model="gpt-4o", mock_response="hello there"))
    assert rich.calm("alice") == round(response._hidden_params["response_cost"] * 1e9)


def test_a_call_around_the_gate_is_held_for_at_the_tripwire(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    """A Logging object supplied by the caller makes LiteLLM bypass the gate."""
    desk = open_desk(default_limit="0.0125")
    litellm.completion(**desk.arguments("alice", litellm_logging_obj=_logging_object()))
    assert desk.calm("alice") == WORTH
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice", litellm_logging_obj=_logging_object()))
    assert upstream.requests == 1


def _logging_object() -> Any:
    from datetime import datetime

    from litellm.litellm_core_utils.litellm_logging import Logging

    return Logging(
        model=CHAT,
        messages=[{"role": "user", "content": "x"}],
        stream=False,
        call_type="completion",
        start_time=datetime.now(),
        litellm_call_id="supplied",
        function_id="",
    )


def test_an_ending_that_is_interrupted_leaves_the_call_to_the_next(rich: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt before the charge is delivered must not lose it: the next end of the call charges it."""
    ledger = rich.callback.budget_ledger
    assert ledger is not None
    call = Call(ledger, ledger.principal("alice"), request_of("completion", rich.arguments("alice")))
    call.admit()
    call.sent = True
    answer = litellm.ModelResponse(model="gate-chat", usage=litellm.Usage(completion_tokens=1000, total_tokens=1000))

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("litellm_budget_plugin.hooks.call.response_marks", interrupted)
        call.answered(answer, None)
    assert rich.held("alice") == WORTH
    call.answered(answer, None)
    assert rich.calm("alice") == WORTH
