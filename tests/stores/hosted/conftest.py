"""Fixtures: an endpoint, and stores on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from litellm_budget_plugin.stores.hosted.store import HostedStore
from tests.stores.hosted.endpoint import Endpoint, Line


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that nobody has used yet."""
    served = Endpoint()
    yield served
    served.close()


@pytest.fixture
def opened(endpoint: Endpoint) -> Iterator[Callable[..., HostedStore]]:
    """Opens stores on the endpoint, each as a process of its own would."""
    lines: list[Line] = []

    def open_one(**options: object) -> HostedStore:
        lines.append(Line(endpoint.url))
        return HostedStore(lines[-1], "the endpoint", **options)  # type: ignore[arg-type]

    yield open_one
    for line in lines:
        line.close()


@pytest.fixture
def store(opened: Callable[..., HostedStore]) -> HostedStore:
    """One store."""
    return opened()
