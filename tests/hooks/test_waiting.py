"""WAIT_FOR_HELD: calls wait for money that only calls in flight hold, in order, without blocking an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from litellm import Router

from litellm_budget_plugin import BudgetExceeded, BudgetStoreUnavailable
from litellm_budget_plugin.core.commands import Granted
from litellm_budget_plugin.hooks import waiting
from tests.hooks.desk import CHAT, OTHER, WORTH, Desk
from tests.stores.redis.server import redis_url
from tests.upstream import Upstream

MEMORY: dict[str, Any] = {"store_url": "memory://", "journal": "off"}
LONG = 300
"""More seconds than any test takes, because waiting calls are woken."""


@pytest.fixture
def open_one(open_desk: Callable[..., Desk]) -> Callable[..., Desk]:
    """A desk with room for one call. Its calls wait."""
    return lambda **settings: open_desk(**{"default_limit": "0.0125", "wait_for_held": LONG, **MEMORY, **settings})


class Calls:
    """Synchronous calls in threads, with their results in the order in which they ended."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.ended: list[tuple[str, Any]] = []
        self.threads: list[threading.Thread] = []

    def start(self, name: str, user: str = "alice", **more: Any) -> None:
        """Make a call, and return when it waits or has ended."""

        def run() -> None:
            try:
                self.ended.append((name, litellm.completion(**self._desk.arguments(user, **more))))
            except Exception as error:
                self.ended.append((name, error))

        before = self._desk.waiting
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        until(lambda: self._desk.waiting > before or not self.threads[-1].is_alive())

    def end(self) -> list[str]:
        """Wait for all calls, and return the order in which they were served. None may have failed."""
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        assert not [error for _, error in self.ended if isinstance(error, Exception)]
        return [name for name, _ in self.ended]


def until(true: Callable[[], object]) -> None:
    """Return when a condition has become true, which must happen."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


async def aside(true: Callable[[], object]) -> None:
    """Do what `until` does, on an event loop."""

    async def poll() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 30)


def served(desk: Desk, upstream: Upstream) -> list[int]:
    """Return the output limits of the requests that were sent, in order."""
    return [body["max_tokens"] for body in upstream.bodies]


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have calls woken only by what ends in this process."""
    monkeypatch.setattr(waiting, "_SOONEST", LONG)
    monkeypatch.setattr(waiting, "_LATEST", LONG)


def granted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The nano-dollars of every hold that is granted from now on, in order: requests can overtake each other
    afterwards.
    """
    reserve, found = desk.callback._ledger.reserve, list[int]()

    def noted(command: Any) -> Any:
        reply = reserve(command)
        if isinstance(reply, Granted):
            found.append(reply.amounts.usd)
        return reply

    monkeypatch.setattr(desk.callback._ledger, "reserve", noted)
    return found


# In threads.


@pytest.mark.usefixtures("no_polling")
def test_calls_are_served_in_the_order_of_their_arrival(
    open_one: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_one(default_limit="0.07")
    release, calls, order = desk.hold("alice", 70_000_000), Calls(desk), [998, 1000, 997, 999, 996]
    for tokens in order:
        calls.start(str(tokens), max_tokens=tokens)
    assert (desk.waiting, upstream.requests) == (5, 0)
    holds = granted(desk, monkeypatch)
    release()
    calls.end()
    assert (holds, desk.waiting) == ([tokens * 12_500 for tokens in order], 0)


def test_a_small_call_does_not_overtake_a_large_one(
    open_one: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fit at any time. A stream of such calls would make the large one wait forever."""
    desk = open_one(default_limit="0.04")
    upstream.usage = upstream.usage._replace(completion=1)
    release, calls = desk.hold("alice", 10_000_000), Calls(desk)
    calls.start("large", max_tokens=3000)
    for number in range(3):
        calls.start(f"small {number}", max_tokens=8)
    assert (desk.waiting, upstream.requests) == (4, 0)
    calls.start("bob", user="bob", max_tokens=8)
    assert served(desk, upstream) == [8]
    holds = granted(desk, monkeypatch)
    release()
    calls.end()
    assert holds == [3000 * 12_500, *[8 * 12_500] * 3]


def test_a_call_that_what_is_spent_leaves_no_room_for_does_not_wait(open_one: Callable[..., Desk]) -> None:
    desk = open_one(default_limit="0.04")
    release, calls = desk.hold("alice", 10_000_000), Calls(desk)
    calls.start("large", max_tokens=3000)
    for tokens in (3201, 100_000):
        with pytest.raises(BudgetExceeded) as refused:
            litellm.completion(**desk.arguments("alice", max_tokens=tokens))
        assert refused.value.reason == "spent"
    release()
    calls.end()


def test_its_time_over_a_call_is_refused_as_before(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_one(wait_for_held=0.05)
    desk.hold("alice")
    with pytest.raises(BudgetExceeded) as refused:
        litellm.completion(**desk.arguments("alice"))
    assert refused.value.reason == "held"
    assert (desk.usage("alice").refusals, desk.held("alice"), desk.waiting, upstream.requests) == (1, WORTH, 0, 0)


@pytest.mark.usefixtures("no_polling")
def test_an_interrupt_leaves_nothing_and_lets_the_next_one_go(
    open_one: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    desk = open_one()
    release, calls = desk.hold("alice"), Calls(desk)

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            calls.start("next")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        real = threading.Event
        events: Iterator[Any] = iter([Interrupted()])
        patched.setattr(waiting, "threading", SimpleNamespace(Event=lambda: next(events, None) or real()))
        with pytest.raises(KeyboardInterrupt):
            litellm.completion(**desk.arguments("alice"))
    assert (desk.waiting, desk.held("alice")) == (1, WORTH)
    release()
    assert calls.end() == ["next"]
    assert desk.calm("alice") == WORTH


def test_only_so_many_may_wait(
    open_one: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING", 1)
    desk = open_one()
    release, calls = desk.hold("alice"), Calls(desk)
    calls.start("first")
    with pytest.raises(BudgetExceeded):
        litellm.completion(**desk.arguments("alice"))
    release()
    assert calls.end() == ["first"]


@pytest.mark.parametrize("settings", [{"wait_for_held": 0}, {"mode": "shadow"}])
def test_who_never_waits(open_one: Callable[..., Desk], upstream: Upstream, settings: dict[str, Any]) -> None:
    desk = open_one(**settings)
    desk.hold("alice")
    if settings.get("mode") == "shadow":
        litellm.completion(**desk.arguments("alice"))
    else:
        with pytest.raises(BudgetExceeded):
            litellm.completion(**desk.arguments("alice"))


@pytest.mark.parametrize("policy", ["reject", "allow"])
def test_a_store_that_fails_meanwhile_is_met_as_the_settings_say(
    open_one: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, upstream: Upstream, policy: str
) -> None:
    desk = open_one(on_store_error=policy)
    desk.hold("alice")
    calls, reserve = Calls(desk), desk.callback._ledger.reserve

    def failing(command: Any) -> Any:
        if desk.waiting:
            raise BudgetStoreUnavailable("away")
        return reserve(command)

    monkeypatch.setattr(desk.callback._ledger, "reserve", failing)
    calls.start("first")
    calls.threads[0].join(30)
    assert isinstance(calls.ended[0][1], BudgetStoreUnavailable) == (policy == "reject")
    assert (upstream.requests, desk.waiting) == (int(policy == "allow"), 0)


def test_a_call_that_can_be_capped_does_not_wait(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    """A call that cannot be capped far enough waits, and is capped afterwards."""
    desk = open_one(default_limit="0.03", cap_output=True)
    upstream.usage = upstream.usage._replace(completion=100)
    release = desk.hold("alice", 20_000_000)
    litellm.completion(**desk.arguments("alice"))
    again, calls = desk.hold("alice", 8_000_000), Calls(desk)
    calls.start("capped", max_tokens=2000)
    assert (desk.waiting, served(desk, upstream)) == (1, [800 // 2])
    again()
    calls.end()
    assert 256 <= served(desk, upstream)[1] < 2000
    release()


def test_a_child_that_is_forked_meanwhile_waits_for_nothing(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_one()
    release, calls = desk.hold("alice"), Calls(desk)
    calls.start("first")
    child = os.fork()
    if not child:
        os._exit(desk.waiting)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    release()
    assert calls.end() == ["first"]


# On an event loop.


@pytest.mark.usefixtures("no_polling")
def test_the_event_loop_goes_on_while_calls_wait(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    """The call that is waited for ends on the loop itself. If the loop were blocked, no call would be served."""
    desk = open_one()

    async def all_of_them() -> list[Any]:
        stream = await litellm.acompletion(**desk.arguments("alice", stream=True, max_tokens=999))
        tasks = [asyncio.create_task(litellm.acompletion(**desk.arguments("alice", max_tokens=n))) for n in (9, 8, 7)]
        await aside(lambda: desk.waiting == 3)
        assert (upstream.requests, desk.held("alice")) == (1, 999 * 12_500)
        upstream.usage = upstream.usage._replace(completion=1)
        async for _ in stream:
            pass
        return await asyncio.gather(*tasks)

    upstream.usage = upstream.usage._replace(completion=5)
    assert len(asyncio.run(all_of_them())) == 3
    assert sorted(served(desk, upstream)[1:]) == [7, 8, 9]
    assert desk.calm("alice") <= 8 * 12_500


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("cancelled", ["first", "last"])
def test_a_cancelled_call_leaves_nothing_and_lets_the_next_one_go(
    open_one: Callable[..., Desk], upstream: Upstream, cancelled: str
) -> None:
    desk = open_one()

    async def scene() -> None:
        release = desk.hold("alice")
        first = asyncio.create_task(litellm.acompletion(**desk.arguments("alice", max_tokens=1000)))
        await aside(lambda: desk.waiting == 1)
        last = asyncio.create_task(litellm.acompletion(**desk.arguments("alice", max_tokens=999)))
        await aside(lambda: desk.waiting == 2)
        going, staying = (first, last) if cancelled == "first" else (last, first)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert (desk.waiting, desk.held("alice")) == (1, WORTH)
        release()
        await staying

    asyncio.run(scene())
    assert served(desk, upstream) == [999 if cancelled == "first" else 1000]
    assert desk.calm("alice") == WORTH


WAYS: dict[str, Callable[[Desk, Upstream], Any]] = {
    "plain": lambda desk, upstream: litellm.acompletion(**desk.arguments("alice")),
    "stream": lambda desk, upstream: litellm.acompletion(**desk.arguments("alice", stream=True)),
    "num_retries": lambda desk, upstream: litellm.acompletion(**desk.arguments("alice", num_retries=2)),
    "fallbacks": lambda desk, upstream: litellm.acompletion(**desk.arguments("alice", fallbacks=[CHAT])),
    "responses": lambda desk, upstream: litellm.aresponses(
        model=CHAT, input="x", max_output_tokens=1000, user="alice", api_base=upstream.url, api_key="k", num_retries=2
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_call_whose_time_is_over_sends_nothing(open_one: Callable[..., Desk], upstream: Upstream, way: str) -> None:
    """LiteLLM swallows what is raised where the call waits, and continues. Then the tripwire stops it."""
    desk = open_one(wait_for_held=0.05)
    desk.hold("alice")
    with pytest.raises(BudgetExceeded) as refused:
        asyncio.run(WAYS[way](desk, upstream))
    assert refused.value.reason == "held"
    assert (upstream.requests, desk.held("alice"), desk.waiting) == (0, WORTH, 0)


class WithoutTripwire(litellm.CustomLLM):
    """A provider of the application's own, which LiteLLM calls without `Logging.pre_call`."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        self.requests += 1
        return litellm.completion(model="gpt-4o", messages=[{"role": "user", "content": "x"}], mock_response="Hi")

    async def astreaming(self, *args: Any, **kwargs: Any) -> Any:
        self.requests += 1
        yield {"finish_reason": "stop", "index": 0, "is_finished": True, "text": "Hi", "tool_use": None, "usage": None}


@pytest.mark.parametrize("ends", ["held", "blocked"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "retries", [{}, {"num_retries": 2}, {"retry_policy": litellm.RetryPolicy(InternalServerErrorRetries=2)}, "global"]
)
def test_a_refusal_where_a_call_waits_is_not_retried_around_the_gate(
    open_one: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, retries: Any, stream: bool, ends: str
) -> None:
    provider = WithoutTripwire()
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "mine", "custom_handler": provider}])
    litellm.register_model({"mine/m": {**litellm.model_cost[CHAT], "litellm_provider": "mine"}})
    if retries == "global":
        monkeypatch.setattr(litellm, "num_retries", 2)
        retries = {}
    desk = open_one(wait_for_held=0.05 if ends == "held" else LONG)
    desk.hold("alice")
    arguments = {**desk.arguments("alice", stream=stream), "model": "mine/m", **retries}

    async def scene() -> None:
        task = asyncio.create_task(litellm.acompletion(**arguments))
        await aside(lambda: desk.waiting == 1 or task.done())
        if ends == "blocked":
            desk.callback.manager.block("alice")
            desk.callback._ledger.waiting_line.wake_all()
        await task

    with pytest.raises(BudgetExceeded) as refused:
        asyncio.run(scene())
    assert refused.value.reason == ends
    assert (provider.requests, desk.held("alice"), desk.waiting) == (0, WORTH, 0)


@pytest.mark.parametrize("calls_ours", [False, True])
def test_a_call_is_deferred_only_where_it_will_come_to_where_it_waits(
    open_one: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, calls_ours: bool
) -> None:
    """Another tool has replaced LiteLLM's function with its own, or wrapped it, after us."""
    provider = WithoutTripwire()
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "mine", "custom_handler": provider}])
    litellm.register_model({"mine/m": {**litellm.model_cost[CHAT], "litellm_provider": "mine"}})
    desk = open_one(wait_for_held=0.05)
    ours = litellm.utils.async_pre_call_deployment_hook

    async def theirs(kwargs: Any, call_type: Any) -> Any:
        return await ours(kwargs, call_type) if calls_ours else kwargs

    monkeypatch.setattr(
        "litellm.utils.async_pre_call_deployment_hook", functools.wraps(ours)(theirs) if calls_ours else theirs
    )
    desk.hold("alice")
    waited = []
    monkeypatch.setattr(waiting, "_arrive", lambda call, arrive=waiting._arrive: waited.append(call) or arrive(call))
    with pytest.raises(BudgetExceeded):
        asyncio.run(litellm.acompletion(**{**desk.arguments("alice"), "model": "mine/m"}))
    assert (provider.requests, desk.held("alice"), desk.waiting, len(waited)) == (0, WORTH, 0, int(calls_ours))


def test_a_call_whose_loop_is_gone_holds_up_nobody(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_one()
    release = desk.hold("alice")
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(litellm.acompletion(**desk.arguments("alice")))
    loop.run_until_complete(aside(lambda: desk.waiting == 1))
    loop.close()
    release()
    litellm.completion(**desk.arguments("alice"))
    assert (upstream.requests, desk.waiting) == (1, 0)
    del waiting


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("room", [False, True])
def test_a_call_that_never_came_to_where_it_was_to_wait_is_never_sent_unheld(
    open_one: Callable[..., Desk], upstream: Upstream, monkeypatch: pytest.MonkeyPatch, way: str, room: bool
) -> None:
    desk = open_one()
    release = desk.hold("alice")
    held: list[int] = []
    upstream.watch = lambda body: held.append(desk.held("alice"))

    async def passed_by(kwargs: dict[str, Any], call_type: str) -> dict[str, Any]:
        if room:
            release()
        return kwargs

    # The gate finds its own function inside, and cannot know that this wrapper does not call it.
    around = functools.wraps(litellm.utils.async_pre_call_deployment_hook)(passed_by)
    monkeypatch.setattr(litellm.utils, "async_pre_call_deployment_hook", around)
    if way == "responses":
        upstream.script["gate-chat"].append(500)
    try:
        asyncio.run(WAYS[way](desk, upstream))
    except Exception as error:
        # `fallbacks=` turns any error of its attempts into an error of LiteLLM's own.
        assert way == "responses" if room else "only holds of calls in flight prevent it" in str(error)
    assert (bool(upstream.requests), set(held)) == (room, {WORTH} if room else set())


def test_refusals_after_waiting_harm_no_deployment(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_one(wait_for_held=0.05)
    desk.hold("alice")
    params = {"model": CHAT, "api_base": upstream.url, "api_key": "k", "max_retries": 0}
    router = Router(
        model_list=[{"model_name": "chat", "litellm_params": params}], allowed_fails=0, cooldown_time=600, num_retries=2
    )
    arguments = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}

    async def scene() -> list[Any]:
        refusals = [router.acompletion(**arguments, user="alice") for _ in range(10)]
        found = await asyncio.gather(*refusals, return_exceptions=True)
        await router.acompletion(**arguments, user="bob")
        return found

    assert {type(error) for error in asyncio.run(scene())} == {BudgetExceeded}
    assert upstream.requests == 1
    counted = router.cache.in_memory_cache.cache_dict
    assert not [key for key in counted if "fail" in str(key) or "cooldown" in str(key)]


def test_a_call_is_moved_to_a_cheaper_model_where_it_waits(open_one: Callable[..., Desk], upstream: Upstream) -> None:
    desk = open_one(fallback_models={CHAT: OTHER}, default_limit="0.0125")
    arguments = desk.arguments("alice")
    arguments["messages"] = [{"role": "user", "content": "x"}]

    async def scene() -> Any:
        release, rest = desk.hold("alice", 4_000_000), desk.hold("alice", 8_000_000)
        del arguments["api_base"], arguments["api_key"]
        task = asyncio.create_task(litellm.acompletion(**arguments, mock_response="Hi"))
        await aside(lambda: desk.waiting == 1)
        rest()
        answer = await task
        release()
        return answer

    assert asyncio.run(scene()).model == "gate-other"


# Over processes.

CHILD = """
import sys
from litellm_budget_plugin.core.accounts import Amounts, Default, Subject
from litellm_budget_plugin.core.commands import Granted, Release, Reserve
from litellm_budget_plugin.stores.protocol import ask
from litellm_budget_plugin.stores.registry import open_store
store = open_store(sys.argv[1])
default = Default("user", "none", 12_500_000)
command = Reserve("h", "default", (Subject("user", "alice"),), (), Amounts(12_500_000, 1, 1), int(sys.argv[2]), (default,))
assert isinstance(ask(store, command), Granted)
print("held", flush=True)
sys.stdin.readline()
ask(store, Release("h", "default"))
print("released", flush=True)
"""


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
@pytest.mark.parametrize("ending", ["released", "killed"])
def test_money_of_another_process_is_waited_for(
    open_one: Callable[..., Desk], upstream: Upstream, tmp_path: Path, engine: str, ending: str
) -> None:
    url = redis_url(tmp_path) if engine == "redis" else f"sqlite:///{tmp_path}/ledger.db"
    desk = open_one(store_url=url)
    ttl = 600_000_000 if ending == "released" else 1_000_000
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(ttl)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "held\n"
    calls = Calls(desk)
    calls.start("first")
    assert (desk.waiting, upstream.requests) == (1, 0)
    if ending == "released":
        child.stdin.write("\n")
        child.stdin.flush()
    else:
        child.kill()
    assert calls.end() == ["first"]
    child.communicate(timeout=30)
    assert desk.calm("alice") == WORTH
