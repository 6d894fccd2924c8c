"""Images through the proxy: its hooks come first, and each attempt is set up and held for separately."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.proxy.desk import Proxy, chat_only, deployment
from tests.surface.provider import Provider
from tests.upstream import Upstream


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    server = Provider()
    yield server
    server.close()


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    config = chat_only(shared_upstream.url)
    config["model_list"].append(deployment("draw", "openai/gate-draw", shared_upstream.url, None))
    config["model_list"][-1]["model_info"] = {"mode": "image_generation", "output_cost_per_image": 0.04}
    return config


def test_the_caller_pays_and_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    """One image costs $0.04, of $0.05."""
    images = proxy.client("sk-user-painter").images
    images.generate(model="draw", prompt="x", size="1024x1024", user="victim")
    assert proxy.calm("painter", 1) == 40_000_000
    with pytest.raises(openai.UnprocessableEntityError, match="user 'painter'"):
        images.generate(model="draw", prompt="x", size="1024x1024", n=2)
    assert upstream.requests == 1
    assert proxy.state("victim") is None
    assert not proxy.held("painter")
