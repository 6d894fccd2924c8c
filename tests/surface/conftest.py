"""An upstream that serves every family, and models of every family whose prices LiteLLM knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hooks.conftest import desk, open_desk  # noqa: F401  # the fixtures of the hooks' tests
from tests.surface.provider import Provider
from tests.surface.ways import register_models
from tests.upstream import Usage

register_models()


@pytest.fixture
def upstream() -> Iterator[Provider]:
    server = Provider()
    server.usage = Usage(1000, 1000)
    yield server
    server.close()
