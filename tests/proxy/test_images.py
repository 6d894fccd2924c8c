"""Images through the proxy: its hooks come first, and each attempt is set up, and held for, by itself."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from litellm_budget_plugin.hooks.requests import CALL_TYPES
from tests.proxy.desk import Proxy, chat_only, deployment
from tests.upstream import Upstream

pytestmark = pytest.mark.skipif("aimage_generation" not in CALL_TYPES, reason="images are not gated yet")


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    config = chat_only(shared_upstream.url)
    config["model_list"].append(deployment("draw", "openai/dall-e-3", shared_upstream.url, None))
    return config


def test_the_caller_pays_and_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    """One image of this size costs $0.04, of $0.05."""
    images = proxy.client("sk-user-painter").images
    images.generate(model="draw", prompt="x", size="1024x1024", user="victim")
    assert proxy.calm("painter", 1) > 0
    with pytest.raises(openai.UnprocessableEntityError, match="user 'painter'"):
        images.generate(model="draw", prompt="x", size="1024x1024", n=2)
    assert upstream.requests == 1
    assert proxy.state("victim") is None
    assert not proxy.held("painter")
