"""Every way of calling waits for money that only calls in flight hold, and none blocks the event loop meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from tests.hooks.desk import Desk
from tests.surface.facts import refusal_of
from tests.surface.provider import Provider
from tests.surface.ways import WAYS, WORTH, Place, Way

NOT_WAITING = ("ocr",)
"""LiteLLM calls these from Rust, without its wrapper, so they cannot wait."""


async def _on_a_loop(way: Way, place: Place, desk: Desk, release: Callable[[], None]) -> None:
    """Make a call while another task on the same loop releases the money."""

    async def release_soon() -> None:
        while not desk.waiting:
            await asyncio.sleep(0)
        release()

    await asyncio.wait_for(asyncio.gather(way.acall(place, "alice"), release_soon()), 20)


@pytest.mark.parametrize("way", [way for way in WAYS if way.kind.name not in NOT_WAITING], ids=lambda way: way.name)
def test_a_way_of_calling_waits(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="0.0125", wait_for_held=30, store_url="memory://", journal="off")
    place, release = Place(upstream.url), desk.hold("alice")
    if way.awaited:
        asyncio.run(_on_a_loop(way, place, desk, release))
    else:
        refused: list[bool] = []
        thread = threading.Thread(target=lambda: refused.append(refusal_of(way, place, "alice")))
        thread.start()
        deadline = time.monotonic() + 20
        while not desk.waiting and thread.is_alive() and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        assert upstream.requests == 0
        release()
        thread.join(20)
        assert refused == [False]
    assert upstream.requests == 1
    assert desk.calm("alice") == WORTH
    assert desk.waiting == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.kind.name in NOT_WAITING], ids=lambda way: way.name)
def test_what_cannot_wait_is_refused_at_once(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    """docs/surface.md says so."""
    desk = open_desk(default_limit="0.0125", wait_for_held=600, store_url="memory://", journal="off")
    release = desk.hold("alice")
    assert refusal_of(way, Place(upstream.url), "alice")
    release()
    assert (upstream.requests, desk.calm("alice")) == (0, 0)
