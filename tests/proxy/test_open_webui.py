"""The proxy of examples/open_webui, with the requests of Open WebUI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.frameworks.open_webui import KEY, headers
from tests.pages import ROOT
from tests.proxy.desk import Proxy
from tests.upstream import Upstream

EXAMPLE = ROOT / "examples" / "open_webui"
BODY = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Proxy]:
    variables = {
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_BUDGET_FILE": str(EXAMPLE / "budgets.toml"),
        "OPENAI_API_BASE": shared_upstream.url,
        "OPENAI_API_KEY": "sk-upstream",
    }
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    running = Proxy(tmp_path_factory.mktemp("open-webui"), config, {**os.environ, **variables}, default_limit="")
    yield running
    running.stop()


def _ask(proxy: Proxy, user: str, **more: Any) -> int:
    return proxy.post(KEY, "/v1/chat/completions", {**BODY, **more}, **headers(user)).status_code


def test_each_user_pays_for_their_own_requests(proxy: Proxy, upstream: Upstream) -> None:
    users = [f"user-{number}@example.com" for number in range(8)]
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda user: _ask(proxy, user), users * 4)) == {200}
    for user in users:
        proxy.calm(user, 4)
        assert proxy.usage(user).calls == 4
    assert upstream.requests == 32


def test_a_user_without_budget_is_refused_and_nobody_else(proxy: Proxy, upstream: Upstream) -> None:
    poor = "poor@example.com"
    assert _ask(proxy, poor, max_tokens=16_000, n=8) == 422
    assert upstream.requests == 0
    assert _ask(proxy, "rich@example.com") == 200


def test_who_is_not_named_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    refused = proxy.post(KEY, "/v1/chat/completions", BODY)
    assert refused.status_code == 422 and "default_user_id" in refused.text
    assert upstream.requests == 0


def test_who_has_no_key_is_nobody(proxy: Proxy, upstream: Upstream, tmp_path: Path) -> None:
    named = {name: text for name, text in headers("alice@example.com").items() if name != "Authorization"}
    assert proxy.post("sk-guessed", "/v1/chat/completions", BODY, **named).status_code in (400, 401)
    assert upstream.requests == 0
