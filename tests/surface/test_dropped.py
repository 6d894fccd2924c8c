"""A dropped stream gives its money back when its last reference is gone, without a garbage collection: a refusal that had to
collect garbage would delay all other calls.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.hooks.desk import Desk
from tests.surface.provider import Provider
from tests.surface.ways import WAYS, WORTH, Place, Way

# The Router wraps a stream of the Responses API in a class that it makes for the call, and classes are freed by a collection
# only.
STREAMS = [way for way in WAYS if way.streams and way.name != "Router.aresponses, stream"]


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("way", STREAMS, ids=lambda way: way.name)
def test_the_money_of_a_dropped_stream_comes_back(way: Way, open_desk: Callable[..., Desk], upstream: Provider) -> None:
    desk = open_desk(default_limit="10")
    way.call(Place(upstream.url), "alice", most=4)
    deadline = time.monotonic() + 20
    while desk.held("alice"):
        assert time.monotonic() < deadline, "only a garbage collection would free it"
        # LiteLLM's own threads drop a call a moment after its end.
        threading.Event().wait(0.01)
        desk.callback.flush()
    assert 0 < desk.spent("alice") <= WORTH
