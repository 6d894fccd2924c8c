"""Fixtures: a registry for each test, and the callbacks of tests/hooks with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from litellm_budget_plugin import metrics
from litellm_budget_plugin.manager import sharing
from tests.hooks.conftest import desk, open_desk, upstream
from tests.hooks.desk import Desk
from tests.manager.faraway import Faraway
from tests.metrics.reading import Shown

__all__ = ["desk", "open_desk", "upstream"]

OpenFar = Callable[..., Desk]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """The registry in which every ledger of the test shows its metrics."""
    own = CollectorRegistry()
    monkeypatch.setattr(metrics, "_chosen", None)
    metrics.use_registry(own)
    return own


@pytest.fixture
def shown(registry: CollectorRegistry) -> Shown:
    return Shown(registry)


@pytest.fixture
def line() -> Faraway:
    """The networked store of `open_far`."""
    return Faraway()


@pytest.fixture
def open_far(
    line: Faraway, open_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[OpenFar]:
    """A function that opens desks on a networked ledger whose connection a test can cut."""
    monkeypatch.setattr(sharing, "open_store", lambda url, timeout=None: line)

    def open_one(**settings: Any) -> Desk:
        url = "postgresql://test:test@127.0.0.1/test"
        return open_desk(**{"project": "p", "store_url": url, "journal": str(tmp_path / "journal"), **settings})

    yield open_one
    line.away = line.deaf = False
