"""LiteLLM must not fetch its price map, and no test of this folder may open a connection."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import socket
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import litellm
import pytest

from litellm_budget_plugin.pricing import Request

MakeRequest = Callable[..., Request]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pricing opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cost_map() -> Iterator[dict[str, Any]]:
    """LiteLLM's cost map, restored after the test."""
    before = deepcopy(litellm.model_cost)
    yield litellm.model_cost
    litellm.model_cost.clear()
    litellm.model_cost.update(before)
    getattr(litellm.utils, "_invalidate_model_cost_lowercase_map", lambda: None)()
    litellm.get_model_info.cache_clear() if hasattr(litellm.get_model_info, "cache_clear") else None


@pytest.fixture
def chat() -> MakeRequest:
    """Return a function that makes a chat request of one user message, with more arguments."""

    def make(model: str = "gpt-4o", text: Any = "Hello", **params: Any) -> Request:
        provider = params.pop("provider", None)
        params.setdefault("messages", [{"role": "user", "content": text}])
        return Request("completion", model, provider, params)

    return make
