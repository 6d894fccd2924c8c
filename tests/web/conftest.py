"""An application in each framework, served for the whole module, over the module's own ledger and provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest

from litellm_budget_plugin import BudgetCallback
from tests.hooks.conftest import _CALLBACK_LISTS
from tests.hooks.desk import Desk
from tests.upstream import Upstream, Usage
from tests.web import apps


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    server = Upstream()
    # One call costs this, at most and in fact: 1,000 output tokens.
    server.usage = Usage(1000, 1000)
    yield server
    server.close()


@pytest.fixture
def open_desk(provider: Upstream, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Open ledgers. The calls of the applications are held on the last one that was opened."""
    opened: list[BudgetCallback] = []

    def open_one(**settings: Any) -> Desk:
        url = f"sqlite:///{tmp_path}/ledger.db"
        common = {"default_limit": "0.1", "default_window": "month", "store_timeout": 10.0, "store_url": url}
        opened.append(BudgetCallback(**{**common, **settings}))
        litellm.callbacks = [opened[-1]]
        desk = Desk(opened[-1], provider.url)
        apps.CALL.update(desk.arguments("nobody"))
        del apps.CALL["user"]
        return desk

    yield open_one
    for callback in opened:
        callback.close()
    for name in _CALLBACK_LISTS:
        setattr(litellm, name, [])


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


@pytest.fixture
def away(open_desk: Callable[..., Desk], tmp_path: Path) -> Desk:
    """A ledger whose store is unreachable."""
    return open_desk(store_timeout=0.05, store_url="redis://127.0.0.1:1/0", journal=str(tmp_path / "journal"))


@pytest.fixture(scope="module")
def url_of() -> Iterator[Callable[[str], str]]:
    """Return the address of an application, by its framework's name."""
    running: dict[str, apps.Served] = {}

    def served(name: str) -> str:
        if name not in running:
            makers = {
                **apps.ASGI,
                **apps.WSGI,
                "outermost": apps.outermost,
                "layered": apps.layered,
                "django-asgi": apps.django_asgi,
            }
            running[name] = apps.Served(makers[name](), is_asgi=name not in apps.WSGI)
        return running[name].url

    yield served
    for server in running.values():
        server.stop()
