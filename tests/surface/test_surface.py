"""Every way of calling: refused before sending, charged exactly, nothing held afterwards; and docs/surface.md says so."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetExceeded
from tests.hooks.desk import Desk
from tests.surface.facts import measure, page_rows, refusal_of
from tests.surface.provider import Provider
from tests.surface.ways import WAYS, WORTH, Place, Way, arguments
from tests.upstream import Usage

EVERY_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
CALLS = 40


@EVERY_WAY
def test_a_way_of_calling(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    facts = measure(way, open_desk, upstream)
    assert (facts.refused, facts.requests) == (True, 0)
    assert facts.spent == WORTH
    assert facts.dropped is None or 0 < facts.dropped <= WORTH
    assert facts.row in page_rows()


def test_the_page_has_no_row_without_a_test() -> None:
    assert [row.split("`")[1] for row in page_rows()] == [way.name for way in WAYS]


@EVERY_WAY
def test_overspend_this_way(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="0.05")
    place = Place(upstream.url)
    refused = asyncio.run(_in_tasks(way, place)) if way.awaited else _in_threads(way, place)
    assert (refused, upstream.requests) == (CALLS - 4, 4)
    assert desk.calm("alice") == 4 * WORTH


def _in_threads(way: Way, place: Place) -> int:
    outcomes: list[bool] = []
    barrier = threading.Barrier(CALLS)

    def run() -> None:
        barrier.wait()
        outcomes.append(refusal_of(way, place, "alice"))

    threads = [threading.Thread(target=run) for _ in range(CALLS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == CALLS
    return sum(outcomes)


async def _in_tasks(way: Way, place: Place) -> int:
    outcomes = await asyncio.gather(*[way.acall(place, "alice") for _ in range(CALLS)], return_exceptions=True)
    others = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(other, BudgetExceeded) for other in others), others
    return len(others)


@EVERY_WAY
def test_an_http_error_costs_nothing(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="10")
    with contextlib.suppress(Exception):
        way.call(Place(upstream.url, "500"), "alice")
    assert upstream.requests >= 1
    assert desk.calm("alice") == 0


@EVERY_WAY
def test_a_lost_connection_costs_no_more_than_the_call(
    way: Way, open_desk: Callable[..., Desk], upstream: Provider
) -> None:
    desk = open_desk(default_limit="10")
    with contextlib.suppress(Exception):
        way.call(Place(upstream.url, "cut"), "alice")
    assert upstream.requests >= 1
    # In a family without an input side, the whole call was probably billed.
    assert 0 <= desk.calm("alice") <= WORTH * upstream.requests


@pytest.mark.parametrize("way", [way for way in WAYS if way.awaited], ids=lambda way: way.name)
def test_a_cancelled_call_holds_nothing(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="10")

    async def cancelled() -> None:
        task = asyncio.create_task(way.acall(Place(upstream.url, "hang"), "alice"))
        while not upstream.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task

    asyncio.run(cancelled())
    upstream.release.set()
    assert 0 <= desk.calm("alice") <= WORTH


@pytest.mark.parametrize("way", [way for way in WAYS if way.streams], ids=lambda way: way.name)
def test_a_stream_that_is_cut_off_is_charged_for_what_came(
    way: Way, open_desk: Callable[..., Desk], upstream: Provider
) -> None:
    desk = open_desk(default_limit="10")
    with contextlib.suppress(Exception):
        way.call(Place(upstream.url, "cut-stream"), "alice")
    assert 0 <= desk.calm("alice") < WORTH


def test_moderation_is_free_and_never_refused(open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="0", on_missing_user="reject", on_unknown_price="reject")
    arguments: dict[str, Any] = {
        "input": "x",
        "api_base": upstream.url,
        "api_key": "sk-test",
        "model": "gate-moderation",
    }
    litellm.moderation(**arguments)
    asyncio.run(litellm.amoderation(**arguments))
    assert upstream.requests == 2
    assert desk.calm("anonymous") == 0


def test_usage_of_zero_output_is_exact_too(open_desk: Callable[..., Desk], upstream: Provider) -> None:
    upstream.usage = Usage(1000, 0)
    desk = open_desk(default_limit="10")
    for way in WAYS:
        if way.name in ("responses", "anthropic.messages", "generate_content"):
            way.call(Place(upstream.url), "alice")
    assert desk.calm("alice") == 0


def test_a_response_in_the_background_is_charged_what_is_held(
    open_desk: Callable[..., Desk], upstream: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    desk = open_desk(default_limit="10")
    way = next(way for way in WAYS if way.name == "responses")
    litellm.responses(**arguments(way.kind, Place(upstream.url), "alice"), background=True)
    assert desk.calm("alice") == WORTH
    assert "what was held for it is charged" in caplog.text
