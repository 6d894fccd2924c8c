"""Fixtures: an endpoint, and stores on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from litellm_budget_plugin.stores.hosted import HostedStore
from tests.stores.hosted.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A new endpoint."""
    served = Endpoint()
    yield served
    served.close()


@pytest.fixture
def opened(endpoint: Endpoint) -> Iterator[Callable[..., HostedStore]]:
    """Open stores on the endpoint, each like a separate process."""
    stores: list[HostedStore] = []

    def open_one(**options: object) -> HostedStore:
        stores.append(HostedStore(endpoint.exchange(), **options))  # type: ignore[arg-type]
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., HostedStore]) -> HostedStore:
    """One store."""
    return opened()
