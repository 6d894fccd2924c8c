"""Every engine of a store. A new one joins by a line in ENGINES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.stores.http.server import http_url
from tests.stores.postgres import server as postgres
from tests.stores.redis.server import redis_url

ENGINES: dict[str, Callable[[Path], str]] = {
    "memory": lambda directory: "memory://",
    "sqlite": lambda directory: f"sqlite:///{directory}/ledger.db",
    "postgres": lambda directory: postgres.shared().url(),
    "redis": redis_url,
    "http": http_url,
}
"""Functions from a directory of the test's own to the URL of an empty ledger."""

LOCAL = ("memory", "sqlite")
"""The engines inside this process, behind a lock of their own."""
