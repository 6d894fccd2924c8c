"""Clients of the proxy: no body passes a limit, and streams look to clients as without this package."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.edge.provider import INPUT, MODELS, OUTPUT, BillingProvider
from tests.edge.test_arguments import BOMB_ROWS, WAYS, Row
from tests.proxy.desk import CALLBACK, MASTER, MESSAGES, Proxy, deployment

LIMIT = 5_000_000
_PATHS = {
    "openai": "/v1/chat/completions",
    "vllm": "/v1/chat/completions",
    "anthropic": "/v1/chat/completions",
    "gemini": "/v1/chat/completions",
    "cohere": "/v1/chat/completions",
    "ollama": "/v1/chat/completions",
    "text": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embedding": "/v1/embeddings",
}
ROWS = [row for row in BOMB_ROWS if row.way in _PATHS]


@pytest.fixture(scope="module")
def provider() -> Iterator[BillingProvider]:
    server = BillingProvider()
    yield server
    server.close()


@pytest.fixture(scope="module")
def config(provider: BillingProvider) -> dict[str, Any]:
    models = [model for model in MODELS if not model.startswith(("azure", "bedrock"))]
    return {
        "model_list": [
            deployment(model.partition("/")[2], model, provider.base(model), (INPUT, 0 if "embed" in model else OUTPUT))
            for model in models
        ],
        "litellm_settings": {"callbacks": CALLBACK},
        "general_settings": {"master_key": MASTER, "custom_auth": "auth.user_api_key_auth"},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> Iterator[Proxy]:
    running = Proxy(tmp_path_factory.mktemp("proxy"), config, default_limit=str(LIMIT / 1e9))
    yield running
    running.stop()


def _body(row: Row) -> dict[str, Any]:
    way = WAYS[row.way]
    innocent = {name: value for name, value in way.arguments.items() if name != "max_retries"}
    return {"model": way.model.partition("/")[2], **innocent, **row.more}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_body_passes_the_limit(row: Row, proxy: Proxy, provider: BillingProvider) -> None:
    user, before = f"user-{ROWS.index(row)}", provider.bill
    answer = proxy.post(f"sk-user-{user}", _PATHS[row.way], _body(row))
    assert provider.bill - before <= LIMIT, answer.text[:300]


@pytest.mark.parametrize("seed", range(5))
def test_many_bodies_of_one_client_do_not_pass_it(seed: int, proxy: Proxy, provider: BillingProvider) -> None:
    """Two rows of the table in one body, one body after the other."""
    choose, before = random.Random(seed), provider.bill
    for _ in range(8):
        row = choose.choice(ROWS)
        others = [other for other in ROWS if other.way == row.way]
        body = {**_body(row), **choose.choice(others).more}
        proxy.post(f"sk-user-seed-{seed}", _PATHS[row.way], body)
    assert provider.bill - before <= LIMIT


@pytest.mark.parametrize("way", list(_PATHS))
def test_an_ordinary_body_goes_through(way: str, proxy: Proxy, provider: BillingProvider) -> None:
    user, before = f"ordinary-{way}", provider.bill
    answer = proxy.post(f"sk-user-{user}", _PATHS[way], _body(Row(way, {})))
    assert answer.status_code == 200, answer.text[:300]
    assert proxy.calm(user, 1) == provider.bill - before > 0


def _events(proxy: Proxy, key: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{proxy.url}{path}", json=body, headers=headers, timeout=60) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("model", ["edge-chat", "edge-vllm", "edge-claude", "edge-gemini"])
def test_a_client_that_does_not_ask_for_usage_sees_none_and_is_charged_by_it(
    model: str, proxy: Proxy, provider: BillingProvider
) -> None:
    user, before = f"reader-{model}", provider.bill
    body = {"model": model, "messages": MESSAGES, "max_tokens": 300, "stream": True}
    events = _events(proxy, f"sk-user-{user}", "/v1/chat/completions", body)
    assert all(event["choices"] and not event.get("usage") for event in events)
    assert proxy.calm(user, 1) == provider.bill - before >= 300 * OUTPUT


@pytest.mark.parametrize("model", ["edge-chat", "edge-vllm"])
def test_a_client_that_asks_for_usage_gets_it(model: str, proxy: Proxy, provider: BillingProvider) -> None:
    user, before = f"counter-{model}", provider.bill
    body = {
        "model": model,
        "messages": MESSAGES,
        "max_tokens": 300,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = _events(proxy, f"sk-user-{user}", "/v1/chat/completions", body)
    assert events[-1]["usage"]["completion_tokens"] == 300
    assert proxy.calm(user, 1) == provider.bill - before


@pytest.mark.parametrize(
    "more",
    [
        {"additional_drop_params": ["stream_options"]},
        {"extra_body": {"stream_options": {"include_usage": False}}},
        {"stream_options": {"include_usage": "no"}},
        {"stream": 1},
        {"stream": "true"},
        {"extra_body": {"stream": False}},
        {"extra_body": {"model": "edge-dear"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["edge-chat", "edge-vllm"])
def test_a_client_does_not_choose_how_its_stream_is_charged(
    model: str, more: dict[str, Any], proxy: Proxy, provider: BillingProvider
) -> None:
    user, before = re.sub(r"\W+", "-", f"chooser-{model}-{more}"), provider.bill
    body = {"model": model, "messages": MESSAGES, "max_tokens": 300, "stream": True, **more}
    assert _events(proxy, f"sk-user-{user}", "/v1/chat/completions", body)
    assert proxy.calm(user, 1) == provider.bill - before >= 300 * OUTPUT


def test_googles_own_words_for_a_limit_count(proxy: Proxy, provider: BillingProvider) -> None:
    """Room for 400 tokens of output: a request that names 300 passes."""
    user, before = "googler", provider.bill
    body = {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 300}}
    answer = proxy.post(f"sk-user-{user}", "/v1beta/models/edge-gemini:generateContent", body)
    assert answer.status_code == 200, answer.text[:300]
    assert proxy.calm(user, 1) == provider.bill - before == 300 * OUTPUT + INPUT
