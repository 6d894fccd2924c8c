"""Near a limit a call's output is limited to the room that is left. What is held covers what is sent."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm import Router

from litellm_budget_plugin import BudgetExceeded, BudgetSettings, pricing
from litellm_budget_plugin.core.accounts import Amounts, Subject
from litellm_budget_plugin.core.commands import PutBudget, Read, Reserve, Settle
from litellm_budget_plugin.hooks.near_limit import plan
from litellm_budget_plugin.hooks.near_limit.output_cap import OutputCap, output_cap_for
from litellm_budget_plugin.hooks.near_limit.plan import _TRIES, Offer, want_of
from tests.hooks.desk import CHAT, CHEAP, DEAR, WORTH, Desk
from tests.upstream import Upstream, Usage

LONG = "openai/gate-long"
NOBODY_KNOWS = "openai/gate-endless"
RATE = 12_500
LEAST = 256 * RATE
"""The cost of MIN_OUTPUT."""
FAILURES = (500, 500)
"""With num_retries=1 the provider's SDK tries twice in one attempt, and then LiteLLM makes a second one."""
NOTHING_FIXED: frozenset[str] = frozenset()


def _register(name: str, **more: Any) -> None:
    entry = {"input_cost_per_token": 0.0, "output_cost_per_token": RATE / 1e9, "litellm_provider": "openai", **more}
    litellm.register_model({name: {"mode": "chat", **entry}})


_register(LONG, max_tokens=100_000)
_register(NOBODY_KNOWS)


@pytest.fixture
def thrifty(open_desk: Callable[..., Desk], upstream: Upstream) -> Callable[..., Desk]:
    """Open a desk that caps, over an upstream that writes as much as it may."""

    def open_one(limit: str, **settings: Any) -> Desk:
        upstream.writes_all = True
        upstream.usage = Usage(0, 4096)
        return open_desk(default_limit=limit, cap_output=True, **settings)

    return open_one


def _sync(desk: Desk, **more: Any) -> Any:
    return litellm.completion(**desk.arguments("alice", **more))


def _async(desk: Desk, **more: Any) -> Any:
    return asyncio.run(_acall(desk, **more))


async def _acall(desk: Desk, user: str = "alice", **more: Any) -> Any:
    answer = await litellm.acompletion(**desk.arguments(user, **more))
    if more.get("stream"):
        async for _ in answer:
            pass
    return answer


WAYS = pytest.mark.parametrize("way", [_sync, _async])
STREAMS = pytest.mark.parametrize("stream", [False, True])


def _most(body: dict[str, Any]) -> int:
    """Return the most that a request, as the upstream received it, can cost."""
    prefix = "" if body["model"].startswith("gpt-") else "openai/"
    request = pricing.Request("completion", prefix + body["model"], None, body)
    estimate = pricing.estimate(request, output_allowance=4096, unbounded_hold=0, exact=True)
    # Without a limit it is the model's maximum.
    assert estimate.bounded or litellm.model_cost[f"openai/{body['model']}"]["max_tokens"] == 4096
    return estimate.usd


def _budget(answer: Any) -> Any:
    return answer._hidden_params.get("budget")


@WAYS
@STREAMS
def test_a_call_is_lowered_to_what_there_is_room_for(
    thrifty: Callable[..., Desk],
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    way: Callable[..., Any],
    stream: bool,
) -> None:
    desk = thrifty("0.01")
    answer = way(desk, stream=stream)
    if stream and way is _sync:
        list(answer)
    (body,) = upstream.bodies
    # Half of the room.
    assert body["max_tokens"] == 400
    assert _budget(answer) == {"capped_max_tokens": 400}
    assert desk.calm("alice") == 400 * RATE == _most(body)
    assert desk.usage("alice").refusals == 0
    (line,) = [record for record in caplog.records if "capped" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "a openai/gate-chat call of 'alice' is capped at 400 output tokens: user 'alice' has $0.01 left"
    )


@WAYS
def test_a_call_without_a_limit_gets_one(
    thrifty: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = thrifty("0.05")
    answer = way(desk, max_tokens=None)
    (body,) = upstream.bodies
    assert 1990 <= body["max_tokens"] <= 2000
    assert _budget(answer) == {"capped_max_tokens": body["max_tokens"]}
    assert desk.calm("alice") == body["max_tokens"] * RATE


def test_what_fits_is_left_as_it_is(
    thrifty: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = thrifty("0.0125")
    answer = _sync(desk)
    assert upstream.bodies[0]["max_tokens"] == 1000
    assert _budget(answer) is None
    assert "capped" not in caplog.text


def test_the_callers_own_names_are_lowered_and_never_raised(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    _sync(desk, max_tokens=None, max_completion_tokens=1000)
    assert (upstream.bodies[0].get("max_tokens"), upstream.bodies[0]["max_completion_tokens"]) == (None, 400)
    desk.callback.manager.reset_cost("alice")
    _sync(desk, max_tokens=300, max_completion_tokens=1000)
    assert (upstream.bodies[1]["max_tokens"], upstream.bodies[1]["max_completion_tokens"]) == (300, 400)


def test_reasoning_models_get_the_name_that_they_take() -> None:
    """This package sets max_tokens. LiteLLM translates it into the argument that the provider takes."""
    for model, name in (("o3", "max_completion_tokens"), ("gpt-5", "max_completion_tokens"), ("gpt-4o", "max_tokens")):
        mapped = litellm.utils.get_optional_params(model=model, custom_llm_provider="openai", max_tokens=512)
        assert mapped == {name: 512, **{key: value for key, value in mapped.items() if key != name}}


@pytest.mark.parametrize(("limit", "served"), [("0.0031", False), ("0.0033", True)])
def test_less_than_min_output_is_refused(
    thrifty: Callable[..., Desk], upstream: Upstream, limit: str, served: bool
) -> None:
    desk = thrifty(limit)
    if served:
        _sync(desk)
        assert 256 <= upstream.bodies[0]["max_tokens"] <= 264
        return
    with pytest.raises(BudgetExceeded) as caught:
        _sync(desk)
    assert upstream.requests == 0
    assert (caught.value.reason, caught.value.requested, caught.value.model) == ("spent", WORTH / 1e9, CHAT)
    assert desk.usage("alice").refusals == 1


def test_a_smaller_limit_of_the_callers_is_neither_lowered_nor_refused_early(
    thrifty: Callable[..., Desk], upstream: Upstream
) -> None:
    desk = thrifty("0.002")
    _sync(desk, max_tokens=100)
    assert upstream.bodies[0]["max_tokens"] == 100
    with pytest.raises(BudgetExceeded):
        _sync(desk, max_tokens=100)
    assert upstream.requests == 1


def test_min_output_can_be_set(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01", min_output=700)
    _sync(desk)
    assert upstream.bodies[0]["max_tokens"] == 700
    with pytest.raises(BudgetExceeded):
        _sync(desk)


def test_input_that_has_no_room_is_refused(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    with pytest.raises(BudgetExceeded):
        _sync(desk, model=DEAR, messages=[{"role": "user", "content": "x" * 20_000}])
    assert upstream.requests == 0


def test_the_input_counts(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    _sync(desk, model=DEAR, messages=[{"role": "user", "content": "x" * 2000}])
    assert upstream.bodies[0]["max_tokens"] == 256
    assert 5_200_000 < _most(upstream.bodies[0]) == desk.calm("alice") + 2_112_000


def test_every_choice_counts(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.02")
    _sync(desk, n=3)
    (body,) = upstream.bodies
    assert body["max_tokens"] == 266
    assert desk.calm("alice") == 3 * body["max_tokens"] * RATE == _most(body)


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions_are_capped(thrifty: Callable[..., Desk], upstream: Upstream, stream: bool) -> None:
    desk = thrifty("0.02")
    answer = litellm.text_completion(**desk.text("alice", best_of=2, stream=stream))
    assert _budget(answer) == {"capped_max_tokens": 400}
    if stream:
        list(answer)
    assert upstream.bodies[0]["max_tokens"] == 400
    assert desk.calm("alice") == 2 * 400 * RATE


def test_embeddings_have_no_output_to_cap(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    with pytest.raises(BudgetExceeded):
        litellm.embedding(**desk.embedding("alice"))
    assert upstream.requests == 0


def test_a_limit_given_by_position_cannot_be_lowered(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    arguments = desk.arguments("alice")
    names = list(inspect.signature(litellm.completion).parameters)
    by_position = [arguments.pop(name, None) for name in names[: names.index("max_tokens") + 1]]
    with pytest.raises(BudgetExceeded):
        litellm.completion(*by_position, **arguments)
    assert upstream.requests == 0


def test_a_model_given_by_position_is_capped(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.01")
    arguments = desk.arguments("alice")
    litellm.completion(arguments.pop("model"), arguments.pop("messages"), **arguments)
    assert upstream.bodies[0]["max_tokens"] == 400


def test_text_is_counted_exactly_before_anything_is_capped(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    """gpt-4 at $30 and $60 a million tokens: counted in bytes, this input alone would cost four times as much."""
    desk = thrifty("0.1")
    content = "hello there, " * 500
    _sync(desk, model="gpt-4", messages=[{"role": "user", "content": content}], max_tokens=500)
    assert upstream.bodies[0]["max_tokens"] == 500
    assert (
        pricing.estimate(
            pricing.Request("completion", "gpt-4", None, upstream.bodies[0]), output_allowance=4096, unbounded_hold=0
        ).usd
        > 10**8
    )
    desk.callback.manager.reset_cost("alice")
    _sync(desk, model="gpt-4", messages=[{"role": "user", "content": content}], max_tokens=4000)
    assert 256 <= upstream.bodies[1]["max_tokens"] < 500
    assert _most(upstream.bodies[1]) <= 10**8


def test_several_calls_in_flight_all_get_something(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.05")
    streams = []
    with pytest.raises(BudgetExceeded) as caught:
        while True:
            streams.append(_sync(desk, max_tokens=None, stream=True))
            assert desk.held("alice") == sum(map(_most, upstream.bodies))
    limits = [body["max_tokens"] for body in upstream.bodies]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] >= 256
    assert len(limits) >= 4
    assert caught.value.reason == "held"
    assert 50_000_000 - desk.held("alice") < LEAST
    for stream in streams:
        list(stream)
    assert desk.calm("alice") == sum(map(_most, upstream.bodies)) <= 50_000_000


def test_a_call_that_looks_for_room_is_not_overtaken(
    thrifty: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls that look at the same time would each see half of the room, and together take all of it."""
    desk = thrifty("0.05", store_timeout=5)
    look, others = plan.headroom_for, []

    def looking(*args: Any) -> Any:
        room = look(*args)
        if not others:
            others.append(threading.Thread(target=_sync, args=(desk,), kwargs={"max_tokens": None}))
            others[0].start()
            # Far longer than the other call needs if nothing delays it.
            others[0].join(0.5)
        return room

    monkeypatch.setattr(plan, "headroom_for", looking)
    _sync(desk, max_tokens=None)
    others[0].join()
    first, second = sorted(map(_most, upstream.bodies), reverse=True)
    assert first == pytest.approx(25_000_000, rel=0.01) and second == pytest.approx(12_500_000, rel=0.01)


CALLS = 40


def _check_overspend(desk: Desk, upstream: Upstream, errors: list[BudgetExceeded], limit: str) -> None:
    spent, all_of_it = desk.calm("alice"), round(float(limit) * 1e9)
    assert spent == upstream.billed({"gate-chat": (0, RATE)}) == sum(map(_most, upstream.bodies))
    assert spent <= all_of_it
    assert upstream.requests + len(errors) == CALLS
    assert upstream.requests >= 4
    assert min(body.get("max_tokens", 4096) for body in upstream.bodies) >= 256
    for error in errors:
        assert round((error.limit - error.spent - error.held) * 1e9) < LEAST, error
    if errors:
        # At the end nothing more fits.
        assert all_of_it - spent < LEAST


LIMITS = pytest.mark.parametrize("limit", ["0.05", "0.2"])


@LIMITS
@STREAMS
def test_overspend_in_threads(thrifty: Callable[..., Desk], upstream: Upstream, limit: str, stream: bool) -> None:
    desk = thrifty(limit, store_timeout=5)
    barrier, errors = threading.Barrier(CALLS), []

    def run() -> None:
        barrier.wait()
        try:
            answer = _sync(desk, max_tokens=None, stream=stream)
            if stream:
                list(answer)
        except BudgetExceeded as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check_overspend(desk, upstream, errors, limit)


@LIMITS
@STREAMS
def test_overspend_in_tasks(thrifty: Callable[..., Desk], upstream: Upstream, limit: str, stream: bool) -> None:
    desk = thrifty(limit, store_timeout=5)

    async def all_of_them() -> list[Any]:
        calls = [_acall(desk, max_tokens=None, stream=stream) for _ in range(CALLS)]
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = [result for result in asyncio.run(all_of_them()) if isinstance(result, BaseException)]
    assert all(isinstance(error, BudgetExceeded) for error in errors), errors
    _check_overspend(desk, upstream, errors, limit)


@WAYS
def test_a_retry_keeps_the_cap_and_is_held_for_it(
    thrifty: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = thrifty("0.01")
    upstream.script["gate-chat"].extend(FAILURES)
    held: list[int] = []
    upstream.watch = lambda body: held.append(desk.held("alice"))
    way(desk, num_retries=1)
    assert held == [400 * RATE] * 3
    assert [body["max_tokens"] for body in upstream.bodies] == [400] * 3
    assert desk.calm("alice") == 400 * RATE


@WAYS
def test_a_retry_that_finds_no_room_for_the_capped_call_does_not_leave(
    thrifty: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = thrifty("0.0033")
    upstream.script["gate-chat"].extend(FAILURES)

    def spend(body: dict[str, Any]) -> None:
        desk.callback.manager.update_cost(user="alice", model="gpt-4o", input_text="x", output_text="x " * 400)

    upstream.watch = spend
    # For an asynchronous retry that cannot be made, LiteLLM raises the error of the previous attempt.
    with pytest.raises((BudgetExceeded, litellm.InternalServerError)):
        way(desk, num_retries=1)
    assert upstream.requests == 2


@WAYS
def test_a_fallback_keeps_the_cap(thrifty: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]) -> None:
    desk = thrifty("0.01")
    upstream.script["gate-chat"].append(500)
    way(desk, fallbacks=[CHEAP])
    assert [(body["model"], body["max_tokens"]) for body in upstream.bodies] == [
        ("gate-chat", 400),
        ("gate-cheap", 400),
    ]
    assert desk.calm("alice") == 400 * 2_500


@STREAMS
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_through_a_router_is_capped(
    thrifty: Callable[..., Desk], upstream: Upstream, stream: bool, asynchronous: bool
) -> None:
    desk = thrifty("0.01")
    params = {"model": CHAT, "api_base": upstream.url, "api_key": "sk", "max_retries": 0}
    router = Router(model_list=[{"model_name": "chat", "litellm_params": params}])
    call = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "user": "alice"}

    async def run() -> Any:
        answer = await router.acompletion(**call, stream=stream)
        if stream:
            async for _ in answer:
                pass
        return answer

    answer = asyncio.run(run()) if asynchronous else router.completion(**call, stream=stream)
    if stream and not asynchronous:
        list(answer)
    assert upstream.bodies[0]["max_tokens"] == 400
    assert _budget(answer) == {"capped_max_tokens": 400}
    assert desk.calm("alice") == 400 * RATE


def test_money_that_is_only_held_is_freed_before_anything_is_capped(
    thrifty: Callable[..., Desk], upstream: Upstream
) -> None:
    async def calls() -> None:
        for _ in range(5):
            stream = await litellm.acompletion(**desk.arguments("alice", stream=True))
            async for _chunk in stream:
                break
            del stream, _chunk

    desk = thrifty("0.013")
    upstream.writes_all = False
    asyncio.run(calls())
    assert [body["max_tokens"] for body in upstream.bodies] == [1000] * 5


def test_a_call_without_a_limit_goes_out_as_it_is_while_there_is_plenty(
    thrifty: Callable[..., Desk], upstream: Upstream
) -> None:
    """The most that the model can write is held for it, even beyond OUTPUT_ALLOWANCE."""
    desk = thrifty("100")
    stream = _sync(desk, model=LONG, max_tokens=None, stream=True)
    assert "max_tokens" not in upstream.bodies[0]
    assert desk.held("alice") == 100_000 * RATE
    assert _budget(stream) is None
    list(stream)
    desk.calm("alice")


def test_closer_to_the_limit_it_is_given_what_is_held_for_it(
    thrifty: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    desk = thrifty("10")
    answer = _sync(desk, model=LONG, max_tokens=None)
    assert upstream.bodies[0]["max_tokens"] == 4096
    assert _budget(answer) == {"capped_max_tokens": 4096}
    assert "a openai/gate-long call of 'alice' without a limit is given 4096 output tokens" in caplog.text
    assert "capped" not in caplog.text


@WAYS
def test_a_retry_of_a_call_without_a_limit_is_held_for_in_full_too(
    thrifty: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = thrifty("100")
    upstream.script["gate-long"].extend(FAILURES)
    held: list[int] = []
    upstream.watch = lambda body: held.append(desk.held("alice"))
    way(desk, model=LONG, max_tokens=None, num_retries=1)
    assert held == [100_000 * RATE] * 3


def test_who_has_no_limit_is_not_capped(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit=None, cap_output=True)
    for model in (LONG, NOBODY_KNOWS):
        answer = _sync(desk, model=model, max_tokens=None)
        assert _budget(answer) is None
    assert not any("max_tokens" in body for body in upstream.bodies)


def test_near_the_limit_a_model_of_unknown_length_is_limited_to_what_is_held(
    thrifty: Callable[..., Desk], upstream: Upstream
) -> None:
    desk = thrifty("0.06")
    _sync(desk, model=NOBODY_KNOWS, max_tokens=None)
    assert upstream.bodies[0]["max_tokens"] == 4096


def test_the_project_can_be_what_is_short(
    thrifty: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    thrifty_desk = thrifty("1", project_limit="0.01")
    _sync(thrifty_desk)
    assert upstream.bodies[0]["max_tokens"] == 400
    assert "of 'alice' is capped at 400 output tokens: project 'default' has $0.01 left" in caplog.text


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [
        ({"limit": 6_000_000, "model": "gate-chat"}, 256),
        ({"limit": 6_000_000, "model": "openai/*"}, 256),
        ({"limit": 6_000_000, "model": "gate-other"}, 400),
        ({"limit": 800, "unit": "tokens"}, 287),
        ({"limit": None}, 1000),
        ({"limit": 20_000_000, "window": "7d"}, 1000),
    ],
)
def test_every_account_that_applies_counts(
    thrifty: Callable[..., Desk], upstream: Upstream, budget: dict[str, Any], tokens: int
) -> None:
    desk = thrifty("0.01")
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    ledger.ask(PutBudget("b", "default", Subject("user", "alice"), **budget))
    _sync(desk)
    assert upstream.bodies[0]["max_tokens"] == tokens


def test_a_budget_of_calls_cannot_be_stretched(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.0125")
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    ledger.ask(PutBudget("b", "default", Subject("user", "alice"), unit="calls", limit=1))
    _sync(desk, max_tokens=10)
    with pytest.raises(BudgetExceeded) as caught:
        _sync(desk, max_tokens=10)
    assert (caught.value.unit, caught.value.requested) == ("calls", 1)
    assert upstream.requests == 1


def test_who_is_blocked_is_refused(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("0.0125")
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    ledger.ask(PutBudget("b", "default", Subject("user", "alice"), blocked=True))
    with pytest.raises(BudgetExceeded) as caught:
        _sync(desk)
    assert caught.value.reason == "blocked"
    assert upstream.requests == 0


def test_in_shadow_mode_nothing_is_changed(
    open_desk: Callable[..., Desk], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk(default_limit="0.01", cap_output=True, mode="shadow")
    assert _budget(_sync(desk)) is None
    assert upstream.bodies[0]["max_tokens"] == 1000
    assert "shadow mode: this call would be refused" in caplog.text


def test_it_is_off_unless_it_is_asked_for(open_desk: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_desk(default_limit="0.01")
    with pytest.raises(BudgetExceeded):
        _sync(desk)
    assert upstream.requests == 0


def test_asking_beforehand_does_not_refuse_what_would_be_capped(thrifty: Callable[..., Desk]) -> None:
    desk = thrifty("0.01")
    data = desk.arguments("alice")
    before = dict(data)
    asyncio.run(desk.callback.async_pre_call_hook(None, None, data, "completion"))
    assert data == before
    assert desk.calm("alice") == 0


SETTINGS = BudgetSettings(cap_output=True)
CLAUDE = "anthropic/claude-sonnet-4-5"


def _request(model: str, **params: Any) -> pricing.Request:
    params = {"model": model, "messages": [{"role": "user", "content": "x"}], **params}
    return pricing.Request("completion", model, None, params)


@pytest.mark.parametrize(
    ("model", "params", "least", "most"),
    [
        (CLAUDE, {}, 256, 4096),
        (CLAUDE, {"max_tokens": 9000}, 256, 9000),
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 2000}}, 2256, 9000),
        (CLAUDE, {"max_tokens": 2100, "thinking": {"type": "enabled", "budget_tokens": 2000}}, 2100, 2100),
        (CLAUDE, {"thinking": {"type": "enabled", "budget_tokens": 8000}}, 8256, 8256),
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "disabled"}}, 256, 9000),
        (CLAUDE, {"max_tokens": 9000, "reasoning_effort": "none"}, 256, 9000),
        ("gpt-4", {}, 256, 4096),
        ("openai/gpt-5", {"max_completion_tokens": 500}, 256, 500),
    ],
)
def test_how_far_a_call_can_be_capped(model: str, params: dict[str, Any], least: int, most: int) -> None:
    cap = output_cap_for(_request(model, **params), SETTINGS, NOTHING_FIXED)
    assert cap is not None
    assert (cap.least, cap.most) == (least, most)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "adaptive"}}),
        (CLAUDE, {"max_tokens": 9000, "thinking": {"type": "enabled"}}),
        (CLAUDE, {"max_tokens": 9000, "reasoning_effort": "low"}),
        ("openai/gpt-5", {"max_tokens": 9000, "reasoning_effort": {"effort": "high"}}),
        ("openai/gpt-5", {"max_tokens": 9000, "reasoning": {"effort": "high"}}),
        (CLAUDE, {"max_tokens": 9000, "output_config": {"effort": "high"}}),
        ("gpt-4o", {"max_tokens": 9000, "additional_drop_params": ["max_tokens"]}),
        ("gpt-4o", {"max_tokens": 9000, "extra_body": {"max_tokens": 10_000}}),
        ("gpt-4o", {"max_tokens": "9000"}),
        ("gpt-4o", {"max_tokens": 0}),
        ("gpt-4o", {"max_new_tokens": 9000}),
        ("gpt-4o", {"tools": [{"type": "web_search"}]}),
        ("xai/grok-4", {"max_tokens": 9000}),
        ("perplexity/sonar", {"max_tokens": 9000}),
        ("nobody-knows-this", {"max_tokens": 9000}),
    ],
)
def test_what_is_not_capped(model: str, params: dict[str, Any]) -> None:
    assert output_cap_for(_request(model, **params), SETTINGS, NOTHING_FIXED) is None


@given(
    rate=st.integers(1, 10**6),
    input_rate=st.integers(0, 10**6),
    most=st.integers(257, 10**6),
    choices=st.integers(1, 5),
    share=st.floats(0, 1),
)
def test_the_limit_that_is_set_costs_no_more_than_is_held(
    rate: int, input_rate: int, most: int, choices: int, share: float
) -> None:
    """If a token costs a few nano-dollars, at most one affordable token is left."""
    # Fractions of a nano-dollar, so that every estimate is rounded.
    prices = {"input_cost_per_token": input_rate / 7e12, "output_cost_per_token": rate / 3e12}
    request = _request("gpt-4o", n=choices, max_tokens=most, **prices)
    cap = OutputCap(("max_tokens",), 256, most, None, stated=True)
    offer = Offer(request, cap, BudgetSettings(store_url="memory://"))
    low, high = want_of(offer.least.estimate), want_of(offer.full.estimate)
    amounts = Amounts(low.usd + int((high.usd - low.usd) * share), 1, high.tokens)
    chosen = offer.within(amounts)
    limit = chosen.request.params["max_tokens"]
    assert 256 <= limit <= most
    assert chosen.estimate.usd <= amounts.usd
    if limit + 2 <= most and rate >= 9000:
        assert pricing.estimate(cap.on(request, limit + 2), output_allowance=4096, unbounded_hold=0).usd > amounts.usd


class Overtaking:
    """Have another call hold or spend between a call's look and its hold: one of `amounts` after each look."""

    def __init__(self, desk: Desk, *amounts: int, spend: bool) -> None:
        ledger = desk.callback.budget_ledger
        assert ledger is not None
        self._ledger, self._ask, self._amounts, self._spend = ledger, ledger.ask_in_call, list(amounts), spend
        ledger.ask_in_call = self  # type: ignore[method-assign,assignment]

    def __call__(self, command: Any) -> Any:
        reply = self._ask(command)
        if isinstance(command, Read) and command.scope == "user" and self._amounts:
            amount, hold = self._amounts.pop(0), f"other-{len(self._amounts)}"
            subject = Subject("user", "alice")
            if self._spend:
                self._ask(Settle(hold, "default", (subject,), (), amount, "x", defaults=self._ledger.defaults))
            else:
                want = Amounts(amount, 1, 1)
                self._ask(Reserve(hold, "default", (subject,), (), want, 10**8, defaults=self._ledger.defaults))
        return reply


@pytest.mark.parametrize("spend", [False, True])
def test_who_is_overtaken_looks_anew(thrifty: Callable[..., Desk], upstream: Upstream, spend: bool) -> None:
    """The call does not take all of what is left then."""
    desk = thrifty("0.02")
    Overtaking(desk, 10_000_000, spend=spend)
    stream = _sync(desk, stream=True)
    assert upstream.bodies[0]["max_tokens"] == 400
    assert desk.held("alice") == 400 * RATE + (0 if spend else 10_000_000)
    list(stream)


@pytest.mark.parametrize("spend", [False, True])
def test_who_is_overtaken_until_nothing_is_left_is_refused(
    thrifty: Callable[..., Desk], upstream: Upstream, spend: bool
) -> None:
    desk = thrifty("0.02")
    Overtaking(desk, 10_000_000, 7_000_000, spend=spend)
    with pytest.raises(BudgetExceeded) as caught:
        _sync(desk)
    assert (caught.value.reason, caught.value.requested) == ("spent" if spend else "held", WORTH / 1e9)
    assert upstream.requests == 0


def test_who_is_overtaken_again_and_again_takes_what_is_left(thrifty: Callable[..., Desk], upstream: Upstream) -> None:
    desk = thrifty("10")
    # Each leaves less than the half that the next try asks for.
    left, amounts = 10_000_000_000, []
    for _ in range(_TRIES):
        amounts.append(left * 51 // 100)
        left -= amounts[-1]
    Overtaking(desk, *amounts, spend=False)
    _sync(desk, max_tokens=1_000_000)
    assert left - RATE < _most(upstream.bodies[0]) <= left
