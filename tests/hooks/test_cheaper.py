"""A call without room goes to its model's cheaper one, but only if LiteLLM reaches both in the same way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm import Router

from litellm_budget_plugin import BudgetExceeded, pricing
from litellm_budget_plugin.core.accounts import Subject
from litellm_budget_plugin.core.commands import Accounts, PutBudget, Read
from litellm_budget_plugin.hooks.near_limit.model_fallback import can_move, cheaper_requests
from tests.hooks.desk import CHAT, CHEAP, DEAR, EMBED, OTHER, PRICES, TEXT, WORTH, Desk
from tests.upstream import Upstream, Usage

TINY = "openai/gate-tiny"
TEXT_CHEAP = "text-completion-openai/gate-text-cheap"
WORTH_OTHER = 2_500_000
NOTHING_FIXED: frozenset[str] = frozenset()


def _register(name: str, per_output: float, **more: Any) -> None:
    provider = name.partition("/")[0]
    entry = {"input_cost_per_token": 0.0, "output_cost_per_token": per_output, "litellm_provider": provider}
    litellm.register_model({name: {"mode": "chat", "max_tokens": 4096, **entry, **more}})


_register(TINY, 5e-7)
_register(TEXT_CHEAP, 2.5e-6, mode="completion")
_register("openai/gate-sees", 2.5e-6, supports_vision=True, supports_function_calling=True)
_register("openai/gate-short", 2.5e-6, max_tokens=500)
_register("openai/gate-narrow", 2.5e-6, max_input_tokens=1000)
_register("openai/gate-speaks", 2.5e-6, mode="responses")


@pytest.fixture
def moving(open_desk: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    """Open a desk that moves calls. Its environment names the base and the key."""
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    def open_one(limit: str, models: dict[str, str] | None = None, **settings: Any) -> Desk:
        upstream.writes_all = True
        return open_desk(default_limit=limit, fallback_models=models or {CHAT: OTHER}, **settings)

    return open_one


def _arguments(desk: Desk, **more: Any) -> dict[str, Any]:
    arguments = desk.arguments("alice", **more)
    return {name: value for name, value in arguments.items() if name in more or name not in ("api_base", "api_key")}


def _sync(desk: Desk, **more: Any) -> Any:
    return litellm.completion(**_arguments(desk, **more))


def _async(desk: Desk, **more: Any) -> Any:
    return asyncio.run(_acall(desk, **more))


async def _acall(desk: Desk, **more: Any) -> Any:
    answer = await litellm.acompletion(**_arguments(desk, **more))
    if more.get("stream"):
        async for _ in answer:
            pass
    return answer


WAYS = pytest.mark.parametrize("way", [_sync, _async])
STREAMS = pytest.mark.parametrize("stream", [False, True])
MOVED = {"moved_from": CHAT, "moved_to": OTHER}


@WAYS
@STREAMS
def test_a_call_without_room_goes_to_the_cheaper_model(
    moving: Callable[..., Desk],
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    way: Callable[..., Any],
    stream: bool,
) -> None:
    desk = moving("0.01")
    answer = way(desk, stream=stream)
    if stream and way is _sync:
        list(answer)
    assert [(body["model"], body["max_tokens"]) for body in upstream.bodies] == [("gate-other", 1000)]
    assert answer._hidden_params["budget"] == MOVED
    assert desk.calm("alice") == WORTH_OTHER
    state, usage = desk.state("alice"), desk.usage("alice")
    assert state is not None
    assert dict(state.models) == {"gate-other": WORTH_OTHER}
    assert (usage.calls, usage.refusals) == (1, 0)
    (line,) = [record for record in caplog.records if "goes to" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "a openai/gate-chat call of 'alice' goes to openai/gate-other: user 'alice' has $0.01 left"
    )


def test_what_is_held_is_the_cheaper_models(moving: Callable[..., Desk]) -> None:
    desk = moving("0.01")
    stream = _sync(desk, stream=True)
    assert desk.held("alice") == WORTH_OTHER
    list(stream)


def test_a_call_that_fits_stays(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.0125")
    answer = _sync(desk)
    assert upstream.bodies[0]["model"] == "gate-chat"
    assert "budget" not in answer._hidden_params


def test_the_chain_is_followed_to_the_first_model_that_fits(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.002", {CHAT: OTHER, OTHER: TINY})
    answer = _sync(desk)
    assert upstream.bodies[0]["model"] == "gate-tiny"
    assert answer._hidden_params["budget"] == {"moved_from": CHAT, "moved_to": TINY}
    assert desk.calm("alice") == 500_000


def test_a_model_of_the_chain_that_cannot_serve_is_passed_over(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", {CHAT: "openai/gate-short", "openai/gate-short": OTHER})
    _sync(desk)
    assert upstream.bodies[0]["model"] == "gate-other"


def test_capping_comes_first(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", cap_output=True)
    answer = _sync(desk)
    assert [(body["model"], body["max_tokens"]) for body in upstream.bodies] == [("gate-chat", 400)]
    assert answer._hidden_params["budget"] == {"capped_max_tokens": 400}


@WAYS
@STREAMS
def test_a_moved_call_is_capped_if_it_must_be(
    moving: Callable[..., Desk],
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    way: Callable[..., Any],
    stream: bool,
) -> None:
    desk = moving("0.002", cap_output=True)
    answer = way(desk, stream=stream)
    if stream and way is _sync:
        list(answer)
    assert [(body["model"], body["max_tokens"]) for body in upstream.bodies] == [("gate-other", 400)]
    assert answer._hidden_params["budget"] == {**MOVED, "capped_max_tokens": 400}
    assert desk.calm("alice") == 400 * 2_500
    assert "goes to openai/gate-other and is capped at 400 output tokens: user 'alice' has $0.002 left" in caplog.text


@pytest.mark.parametrize("cap_output", [False, True])
def test_the_refusal_is_about_the_call_that_was_made(
    moving: Callable[..., Desk], upstream: Upstream, cap_output: bool
) -> None:
    desk = moving("0.0001", {CHAT: OTHER, OTHER: TINY}, cap_output=cap_output)
    with pytest.raises(BudgetExceeded) as caught:
        _sync(desk)
    assert (caught.value.model, caught.value.requested) == (CHAT, WORTH / 1e9)
    assert upstream.requests == 0
    assert desk.usage("alice").refusals == 1


def test_text_completions_are_moved(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", {TEXT: TEXT_CHEAP})
    arguments = desk.text("alice")
    answer = litellm.text_completion(**{k: v for k, v in arguments.items() if k not in ("api_base", "api_key")})
    assert upstream.bodies[0]["model"] == "gate-text-cheap"
    assert answer._hidden_params["budget"]["moved_to"] == TEXT_CHEAP
    assert desk.calm("alice") == WORTH_OTHER


@pytest.mark.parametrize("models", [{"gate-chat": "gate-other"}, {"openai/gate-chat": "gate-other"}])
@pytest.mark.parametrize("call", [{"model": CHAT}, {"model": "gate-chat", "custom_llm_provider": "openai"}])
def test_names_with_and_without_the_provider_are_one(
    moving: Callable[..., Desk], upstream: Upstream, models: dict[str, str], call: dict[str, Any]
) -> None:
    """This holds if LiteLLM can tell the provider of a bare name."""
    litellm.register_model({"gate-other": litellm.model_cost["openai/gate-other"]})
    try:
        desk = moving("0.01", models)
        _sync(desk, **call)
        assert upstream.bodies[0]["model"] == "gate-other"
        assert desk.calm("alice") == WORTH_OTHER
    finally:
        del litellm.model_cost["gate-other"]


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@WAYS
@pytest.mark.parametrize(
    "more",
    [
        {"api_base": "http://127.0.0.1:9/v1"},
        {"base_url": "http://127.0.0.1:9/v1"},
        {"api_key": "sk-another"},
        {"api_version": "2024-10-21"},
        {"organization": "another"},
        {"extra_headers": {"authorization": "Bearer another"}},
        {"metadata": {"model_group": "a Router's"}},
        {"litellm_metadata": {"model_group": "a Router's"}},
        {"model_info": {"id": "a Router's"}},
        {"input_cost_per_token": 1e-9},
        {"extra_body": {"x": 1}},
        {"messages": IMAGE},
        {"tools": TOOLS},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"vertex_location": "europe-west1"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_tied_to_its_model_is_not_moved(
    moving: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any], more: dict[str, Any]
) -> None:
    desk = moving("0.01")
    with pytest.raises(BudgetExceeded):
        way(desk, **more)
    assert upstream.requests == 0


@pytest.mark.parametrize(
    ("models", "limit"),
    [
        ({CHAT: "openai/gate-short"}, "0.01"),
        ({CHAT: "openai/gate-speaks"}, "0.01"),
        ({CHAT: "openai/nobody-knows-the-price"}, "0.01"),
        ({CHAT: "anthropic/claude-haiku-4-5"}, "0.01"),
        ({CHAT: "azure/gpt-4o-mini"}, "0.01"),
        ({CHAT: OTHER}, "0.002"),
        ({DEAR: OTHER}, "0.01"),
    ],
)
def test_a_model_that_cannot_take_the_call_does_not(
    moving: Callable[..., Desk], upstream: Upstream, models: dict[str, str], limit: str
) -> None:
    desk = moving(limit, models)
    with pytest.raises(BudgetExceeded):
        _sync(desk)
    assert upstream.requests == 0


def test_a_model_that_has_what_the_call_needs_takes_it(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", {CHAT: "openai/gate-sees"})
    _sync(desk, messages=IMAGE)
    assert upstream.bodies[0]["model"] == "gate-sees"


def test_a_prompt_that_the_cheaper_model_cannot_read_stays(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", {CHAT: "openai/gate-narrow"})
    _sync(desk)
    assert upstream.bodies[0]["model"] == "gate-narrow"
    with pytest.raises(BudgetExceeded):
        _sync(desk, messages=[{"role": "user", "content": "x" * 2000}])


def test_a_model_given_by_position_is_not_moved(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01")
    arguments = _arguments(desk)
    with pytest.raises(BudgetExceeded):
        litellm.completion(arguments.pop("model"), arguments.pop("messages"), **arguments)
    assert upstream.requests == 0


def test_embeddings_are_not_moved(moving: Callable[..., Desk], upstream: Upstream) -> None:
    """Vectors of two models cannot be compared."""
    desk = moving("0.01", {EMBED: "openai/gate-input"})
    arguments = desk.embedding("alice")
    with pytest.raises(BudgetExceeded):
        litellm.embedding(**{k: v for k, v in arguments.items() if k not in ("api_base", "api_key")})
    assert upstream.requests == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_routers_call_is_not_moved(moving: Callable[..., Desk], upstream: Upstream, asynchronous: bool) -> None:
    """Its deployments have no base and no key of their own here, so that only the Router's marks show the Router."""
    desk = moving("0.01")
    router = Router(model_list=[{"model_name": "chat", "litellm_params": {"model": CHAT}}], num_retries=0)
    call = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "user": "alice"}
    with pytest.raises(BudgetExceeded):
        asyncio.run(router.acompletion(**call)) if asynchronous else router.completion(**call)
    assert upstream.requests == 0
    assert desk.calm("alice") == 0


def test_two_names_of_one_model_do_not_lead_around_in_circles() -> None:
    models = {CHAT: "openai/gate-other", "gate-other": CHAT}
    params = {"model": CHAT, "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
    request = pricing.Request("completion", CHAT, None, params)
    assert can_move(request, models, NOTHING_FIXED)
    assert [cheaper.model for cheaper in cheaper_requests(request, models)] == [OTHER]


def test_a_message_object_of_an_earlier_answer_is_looked_into() -> None:
    message = litellm.Message(role="assistant", content="x")
    message.content = [{"type": "image_url", "image_url": {"url": "x"}}]
    request = pricing.Request("completion", CHAT, None, {"model": CHAT, "messages": [message]})
    assert list(cheaper_requests(request, {CHAT: OTHER})) == []
    assert len(list(cheaper_requests(request, {CHAT: "openai/gate-sees"}))) == 1


@pytest.mark.parametrize(
    ("original", "cheaper", "params", "moves"),
    [
        ("gpt-4o", "gpt-4o-mini", {"messages": IMAGE, "tools": TOOLS, "temperature": 0.5}, True),
        ("gpt-4o", "openai/gpt-4o-mini", {"logprobs": True}, True),
        # The o-series takes no top_p.
        ("gpt-4o", "o3-mini", {"top_p": 0.5}, False),
        # gpt-5 takes a temperature, but only 1.
        ("gpt-4o", "gpt-5-nano", {"temperature": 0}, False),
        ("gpt-4o", "gpt-4o-mini", {"tools": [{"type": "web_search"}]}, False),
        ("gpt-4o", "gpt-3.5-turbo", {"messages": IMAGE}, False),
        ("gpt-4o", "gpt-3.5-turbo", {"max_tokens": 8000}, False),
        ("gpt-4o", "gemini/gemini-2.5-flash", {}, False),
        ("claude-opus-4-5", "claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 2000}}, True),
        ("claude-opus-4-5", "claude-3-haiku-20240307", {"thinking": {"type": "enabled", "budget_tokens": 2000}}, False),
    ],
)
def test_real_models(original: str, cheaper: str, params: dict[str, Any], moves: bool) -> None:
    params = {"model": original, "messages": [{"role": "user", "content": "x"}], **params}
    request = pricing.Request("completion", original, None, params)
    models = {original: cheaper}
    moved = can_move(request, models, NOTHING_FIXED) and any(cheaper_requests(request, models))
    assert moved is moves


@WAYS
def test_a_retry_of_a_moved_call_stays_with_the_cheaper_model(
    moving: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = moving("0.01")
    # Two in one attempt, by the provider's SDK. Then LiteLLM makes a second attempt.
    upstream.script["gate-other"].extend([500, 500])
    held: list[int] = []
    upstream.watch = lambda body: held.append(desk.held("alice"))
    way(desk, num_retries=1)
    assert [body["model"] for body in upstream.bodies] == ["gate-other"] * 3
    assert held == [WORTH_OTHER] * 3
    assert desk.calm("alice") == WORTH_OTHER


@WAYS
def test_a_fallback_of_a_moved_call_has_its_own_price(
    moving: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any]
) -> None:
    desk = moving("0.01")
    upstream.usage = Usage(0, 1000)
    upstream.script["gate-other"].append(500)
    way(desk, fallbacks=[CHEAP])
    assert desk.calm("alice") == upstream.billed(PRICES)
    assert upstream.served == ["gate-cheap"]


@WAYS
@STREAMS
def test_an_answer_under_an_unknown_name_costs_what_the_cheaper_model_costs(
    moving: Callable[..., Desk], upstream: Upstream, way: Callable[..., Any], stream: bool
) -> None:
    desk = moving("0.01")
    upstream.answers_as = "a-name-without-a-price"
    answer = way(desk, stream=stream)
    if stream and way is _sync:
        list(answer)
    assert desk.calm("alice") == WORTH_OTHER
    assert answer._hidden_params["litellm_model_name"] == OTHER


@pytest.mark.parametrize(("model", "served"), [("gate-other", False), ("gate-chat", True), ("openai/*", False)])
def test_budgets_per_model_follow_the_move(
    moving: Callable[..., Desk], upstream: Upstream, model: str, served: bool
) -> None:
    """A budget for the cheaper model can refuse the move. A budget for the called model no longer counts."""
    desk = moving("0.01")
    ledger = desk.callback.budget_ledger
    assert ledger is not None
    ledger.ask(PutBudget("b", "default", Subject("user", "alice"), model=model, limit=1_000_000))
    if served:
        _sync(desk)
        assert upstream.served == ["gate-other"]
        assert desk.calm("alice") == WORTH_OTHER
        reply = ledger.ask(Read("default", "user", "alice", defaults=ledger.defaults))
        assert isinstance(reply, Accounts)
        assert [state.spent for state in reply.accounts if state.ref.model == model] == [0]
        return
    with pytest.raises(BudgetExceeded):
        _sync(desk)
    assert upstream.requests == 0


def test_in_shadow_mode_nothing_is_moved(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.01", mode="shadow")
    _sync(desk)
    assert upstream.served == ["gate-chat"]
    assert desk.calm("alice") == WORTH


CALLS = 40


@pytest.mark.parametrize("cap_output", [False, True])
def test_overspend_in_threads(moving: Callable[..., Desk], upstream: Upstream, cap_output: bool) -> None:
    desk = moving("0.055", {CHAT: OTHER, OTHER: TINY}, store_timeout=5, cap_output=cap_output)
    barrier, errors = threading.Barrier(CALLS), []

    def run() -> None:
        barrier.wait()
        try:
            _sync(desk)
        except BudgetExceeded as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = desk.calm("alice")
    assert spent == upstream.billed({**PRICES, "gate-tiny": (0, 500)}) <= 55_000_000
    assert upstream.requests + len(errors) == CALLS
    # Four fit unchanged, and two of the cheaper model fit into the rest.
    assert upstream.requests >= 6
    least = 256 * 500 if cap_output else 500_000
    for error in errors:
        assert round((error.limit - error.spent - error.held) * 1e9) < least, error


def test_overspend_in_tasks(moving: Callable[..., Desk], upstream: Upstream) -> None:
    desk = moving("0.055", {CHAT: OTHER, OTHER: TINY}, store_timeout=5)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*[_acall(desk) for _ in range(CALLS)], return_exceptions=True)

    errors = [result for result in asyncio.run(all_of_them()) if isinstance(result, BaseException)]
    assert all(isinstance(error, BudgetExceeded) for error in errors), errors
    spent = desk.calm("alice")
    assert spent == upstream.billed({**PRICES, "gate-tiny": (0, 500)}) <= 55_000_000
    assert upstream.requests >= 6
