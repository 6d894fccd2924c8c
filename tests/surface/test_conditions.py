"""The ways of calling under other conditions: LiteLLM's cache, its Rust routes, and other people's callbacks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm.caching.caching import Cache
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from litellm_budget_plugin.testing import disabled
from tests.hooks.desk import Desk
from tests.surface.facts import refusal_of
from tests.surface.provider import Provider
from tests.surface.ways import WAYS, WORTH, Place, Way

DIRECT = [way for way in WAYS if not way.name.startswith("Router.")]


@pytest.mark.parametrize("way", [way for way in DIRECT if not way.streams], ids=lambda way: way.name)
def test_what_comes_out_of_litellms_cache_costs_nothing(
    way: Way, open_desk: Callable[..., Desk], upstream: Provider
) -> None:
    desk = open_desk(default_limit="10")
    litellm.cache = Cache(type="local")
    for _ in range(3):
        way.call(Place(upstream.url), "alice")
    assert desk.calm("alice") == upstream.requests * WORTH


@pytest.mark.parametrize("way", [way for way in DIRECT if way.kind.name != "ocr"], ids=lambda way: way.name)
def test_litellms_rust_routes_are_gated_and_charged(
    way: Way, open_desk: Callable[..., Desk], upstream: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_RUST", "1")
    poor = open_desk(default_limit="0.0124", project="poor")
    assert (refusal_of(way, Place(upstream.url), "alice"), upstream.requests) == (True, 0)
    assert poor.calm("alice") == 0
    rich = open_desk(default_limit="10", project="rich")
    if way.awaited:
        # For streams that Rust serves, LiteLLM reports the end from its own queue.
        asyncio.run(_awaited(way, Place(upstream.url)))
    else:
        way.call(Place(upstream.url), "alice")
    assert rich.calm("alice") == WORTH


class _Theirs(CustomLogger):  # type: ignore[misc]
    """Somebody else's callback, which records its events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, ...]] = []

    def _note(self, event: str, kwargs: Any, answer: Any = None) -> None:
        cost = kwargs.get("response_cost")
        self.events.append((event, str(kwargs.get("litellm_call_id")), type(answer).__name__, str(cost)))

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        self._note("pre", {"litellm_call_id": kwargs.get("litellm_call_id")})

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("success", kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("failure", kwargs)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("async success", kwargs, response_obj)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("async failure", kwargs)


async def _awaited(way: Way, place: Place) -> Any:
    try:
        return await way.acall(place, "alice")
    finally:
        await GLOBAL_LOGGING_WORKER.flush()


async def _drained() -> None:
    GLOBAL_LOGGING_WORKER.start()
    await GLOBAL_LOGGING_WORKER.flush()


def _outcome(way: Way, place: Place, callbacks: list[Any], awaited: int = 0) -> tuple[str, list[tuple[str, ...]]]:
    """Make a call. Return its end, and the events of somebody else's callback: it waits for `awaited` events, if they come, and
    for later ones.
    """
    # Earlier calls must not report to the callback of this one.
    asyncio.run(_drained())
    theirs = _Theirs()
    litellm.callbacks = [theirs, *callbacks]
    try:
        outcome = repr(type(asyncio.run(_awaited(way, place)) if way.awaited else way.call(place, "alice")))
    except Exception as error:
        outcome = f"{type(error)} {getattr(error, 'status_code', None)}"
    heard = -1
    deadline = time.monotonic() + 10
    # LiteLLM's own threads report a little later. All events have arrived when no new one arrives.
    while (len(theirs.events) < awaited or len(theirs.events) != heard) and time.monotonic() < deadline:
        heard = len(theirs.events)
        threading.Event().wait(0.25)
    litellm.logging_callback_manager._reset_all_callbacks()
    # A thread of LiteLLM's can still report an earlier call.
    ours = {call_id for event, call_id, _, _ in theirs.events if event == "pre"}
    return outcome, sorted(
        (event, answer, cost) for event, call_id, answer, cost in theirs.events if not ours or call_id in ours
    )


ASKED = ("completion", "text_completion")


@pytest.mark.parametrize("act", ["", "500"])
@pytest.mark.parametrize("way", [way for way in DIRECT if way.kind.name != "ocr"], ids=lambda way: way.name)
def test_nothing_changes_for_anybody_else(
    way: Way, act: str, open_desk: Callable[..., Desk], upstream: Provider
) -> None:
    place = Place(upstream.url, act)
    without = _outcome(way, place, [])
    desk = open_desk(default_limit="10")
    outcome = _outcome(way, place, [desk.callback], len(without[1]))
    if outcome[1] != without[1]:
        # A busy LiteLLM sometimes reports a success twice, without anybody's callbacks. So both are run once more.
        with disabled():
            without = _outcome(way, place, [])
        outcome = _outcome(way, place, [desk.callback], len(without[1]))
    assert outcome == without
    # If a stream's usage is requested, the provider sees no other difference.
    added = upstream.bodies[-1].keys() - upstream.bodies[0].keys()
    assert added == ({"stream_options"} if way.kind.name in ASKED and way.streams else set())
    assert upstream.bodies[0].keys() <= upstream.bodies[-1].keys()
    desk.calm("alice")


def test_the_call_id_is_the_callers(open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="10")
    theirs = _Theirs()
    litellm.callbacks = [theirs, desk.callback]
    litellm.completion(**desk.arguments("alice", litellm_call_id="mine"))
    desk.calm("alice")
    assert theirs.events and {call_id for _, call_id, _, _ in theirs.events} == {"mine"}
