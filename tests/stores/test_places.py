"""Places for a bounded number of connections: returning threads do not overtake waiting ones."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import pytest

from litellm_budget_plugin.stores.net.places import NoPlace, Places


def _waits(places: Places) -> None:
    deadline = time.monotonic() + 30.0
    while not places.waiting:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_who_waits_for_a_place_gets_the_next_one() -> None:
    """Otherwise a thread that returns at once would take the place again and again, while others wait for seconds."""
    places = Places(1)
    place, soon, got = places.enter(time.monotonic()), time.monotonic() + 30.0, SimpleQueue[object]()
    thread = threading.Thread(target=lambda: got.put(places.enter(soon)))
    thread.start()
    _waits(places)
    places.leave(place)
    with pytest.raises(NoPlace):
        places.enter(time.monotonic())
    assert got.get(timeout=30.0) is place
    thread.join()
    places.leave(place)
    assert places.enter(time.monotonic()) is place


def test_a_place_that_was_dropped_comes_back() -> None:
    places = Places(1)
    places.enter(time.monotonic())
    assert places.free == 1


def test_who_has_waited_too_long_takes_none() -> None:
    places = Places(1)
    place = places.enter(time.monotonic())
    with pytest.raises(NoPlace):
        places.enter(time.monotonic() + 0.001)
    assert places.waiting == 0
    places.leave(place)
    assert places.free == 1
