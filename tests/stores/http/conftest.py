"""Fixtures: servers that a test may damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.conftest import own_server
from tests.stores.http.server import http_url

__all__ = ["own_server"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty ledger on the shared server."""
    return http_url(tmp_path)
