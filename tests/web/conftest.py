"""An application in each framework, served for the whole module, over a ledger and a provider of the module's own."""

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
    # One call is worth the same at most and in fact: 1,000 output tokens.
    server.usage = Usage(1000, 1000)
    yield server
    server.close()


@pytest.fixture(scope="module")
def opened(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    path = tmp_path_factory.mktemp("ledger")
    callback = BudgetCallback(
        default_limit="0.1", default_window="month", store_timeout=10.0, store_url=f"sqlite:///{path}/ledger.db"
    )
    desk = Desk(callback, provider.url)
    apps.CALL.update(desk.arguments("nobody"))
    del apps.CALL["user"]
    yield desk
    callback.close()
    for name in _CALLBACK_LISTS:
        setattr(litellm, name, [])


@pytest.fixture
def desk(opened: Desk) -> Desk:
    litellm.callbacks = [opened.callback]
    return opened


@pytest.fixture
def away(opened: Desk, tmp_path: Path) -> Iterator[None]:
    """Calls are to be held on a ledger whose store is not there."""
    callback = BudgetCallback(
        default_limit="0.1", store_timeout=0.05, store_url="redis://127.0.0.1:1/0", journal=str(tmp_path / "journal")
    )
    litellm.callbacks = [callback]
    yield
    litellm.callbacks = [opened.callback]
    callback.close()


@pytest.fixture(scope="module")
def url_of() -> Iterator[Callable[[str], str]]:
    """The address of an application, by its framework's name."""
    running: dict[str, apps.Served] = {}

    def served(name: str) -> str:
        if name not in running:
            makers: dict[str, Callable[[], Any]] = {**apps.ASGI, **apps.WSGI, "outermost": apps.outermost}
            running[name] = apps.Served(makers[name](), is_asgi=name not in apps.WSGI)
        return running[name].url

    yield served
    for server in running.values():
        server.stop()
