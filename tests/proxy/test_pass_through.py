"""Pass-through routes: refused for users with no budget left, and charged once, at the cost that LiteLLM reports."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.proxy.desk import MESSAGES, WORTH, Proxy, chat_only
from tests.upstream import Upstream

BODY = {"model": "gate-chat", "messages": MESSAGES, "max_tokens": 1000}


@pytest.fixture(scope="module")
def config(shared_upstream: Upstream) -> dict[str, Any]:
    config = chat_only(shared_upstream.url)
    common = {"include_subpath": True, "auth": True, "headers": {"Authorization": "Bearer sk-upstream"}}
    config["general_settings"]["pass_through_endpoints"] = [
        {"path": "/priced", "target": shared_upstream.url, "cost_per_request": 0.0125, **common},
        {"path": "/raw", "target": shared_upstream.url, **common},
    ]
    return config


def _ask(proxy: Proxy, payer: str, path: str = "/priced", **more: Any) -> httpx.Response:
    return proxy.post(f"sk-user-{payer}", f"{path}/chat/completions", {**BODY, **more})


def test_a_request_is_charged_once(proxy: Proxy, upstream: Upstream) -> None:
    answer = _ask(proxy, "passing")
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert proxy.calm("passing", 1) == WORTH
    assert proxy.usage("passing").calls == 1


def test_who_has_nothing_left_is_refused(proxy: Proxy, upstream: Upstream) -> None:
    for number in range(4):
        assert _ask(proxy, "spent").status_code == 200
        proxy.calm("spent", number + 1)
    answer = _ask(proxy, "spent")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("user 'spent' has spent $0.05 of $0.05")
    assert upstream.requests == 4


def test_the_same_money_pays_for_both_kinds_of_routes(proxy: Proxy, upstream: Upstream) -> None:
    for _ in range(4):
        proxy.chat("both")
    proxy.calm("both", 4)
    assert _ask(proxy, "both").status_code == 422
    assert upstream.requests == 4


@pytest.mark.parametrize(
    "forged",
    [
        {"user": "victim"},
        {"metadata": {"budget_user": "victim", "user_api_key_user_id": "victim"}},
        {"litellm_metadata": {"budget_user": "victim", "user_api_key_user_id": "victim"}},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_no_body_names_the_payer(proxy: Proxy, upstream: Upstream, forged: dict[str, Any]) -> None:
    payer = f"passing-{next(iter(forged))}"
    assert _ask(proxy, payer, **forged).status_code == 200
    assert proxy.calm(payer, 1) == WORTH
    assert proxy.state("victim") is None


def test_what_litellm_does_not_price_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    assert _ask(proxy, "free", "/raw").status_code == 200
    assert proxy.calm("free", 1) == 0


def test_a_stream_is_charged_once(proxy: Proxy, upstream: Upstream) -> None:
    assert "word4" in _ask(proxy, "streaming", stream=True).text
    proxy.calm("streaming", 1)
    assert proxy.usage("streaming").calls == 1


def test_an_error_of_the_provider_costs_nothing(proxy: Proxy, upstream: Upstream) -> None:
    upstream.script["gate-chat"].append(500)
    assert _ask(proxy, "failing").status_code == 500
    assert proxy.calm("failing") == 0


def test_many_at_once_are_each_charged(proxy: Proxy, upstream: Upstream) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: _ask(proxy, "crowd"), range(20))]
    assert set(statuses) <= {200, 422}
    assert proxy.calm("crowd", statuses.count(200)) == statuses.count(200) * WORTH
    assert upstream.requests == statuses.count(200)


class _Messages(BaseHTTPRequestHandler):
    """A provider of Anthropic's messages: 1,000 tokens in, 1,000 out. With stop sequences its streams break."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        begun = {**message, "content": [], "stop_reason": None, "usage": {"input_tokens": 1000, "output_tokens": 1}}
        text = {"type": "text", "text": "hello"}
        if not body.get("stream"):
            usage = {"input_tokens": 1000, "output_tokens": 1000}
            data = json.dumps({**message, "content": [text], "stop_reason": "end_turn", "usage": usage}).encode()
            return self._send("application/json", data)
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1000}},
            {"type": "message_stop"},
        ]
        if body.get("stop_sequences"):
            del events[3:]
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        return self._send("text/event-stream", "".join(lines).encode(), missing=1000 * bool(body.get("stop_sequences")))

    def _send(self, kind: str, data: bytes, missing: int = 0) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) + missing))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def messages_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Messages)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], messages_url: str) -> Iterator[Proxy]:
    """A proxy with a built-in pass-through route to a provider that LiteLLM can price."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    variables = {
        "ANTHROPIC_API_KEY": "sk-upstream",
        # LiteLLM only reads the streams of this host. Here an HTTP proxy answers for its name.
        "ANTHROPIC_API_BASE": "http://api.anthropic.com",
        "HTTP_PROXY": messages_url,
        "NO_PROXY": "127.0.0.1",
        "DISABLE_AIOHTTP_TRANSPORT": "True",
    }
    running = Proxy(folder, config, variables=variables)
    yield running
    running.stop()


def _message(proxy: Proxy, payer: str, **more: Any) -> httpx.Response:
    body = {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 1000, **more}
    return proxy.post(f"sk-user-{payer}", "/anthropic/v1/messages", body)


@pytest.mark.parametrize("stream", [False, True])
def test_what_litellm_prices_is_charged(proxy: Proxy, stream: bool) -> None:
    """A thousand input tokens at $3 a million and a thousand output tokens at $15."""
    payer = f"messages-{stream}"
    answer = _message(proxy, payer, stream=stream)
    assert answer.status_code == 200, answer.text
    assert "hello" in answer.text
    assert proxy.calm(payer, 1) == 18_000_000
    assert proxy.usage(payer).output_tokens == 1000


def test_a_stream_that_breaks_is_charged_as_far_as_litellm_has_read_it(proxy: Proxy) -> None:
    """The first event contains the input side."""
    with pytest.raises(httpx.RemoteProtocolError):
        _message(proxy, "broken", stream=True, stop_sequences=["break"])
    assert 3_000_000 <= proxy.calm("broken", 1) < 4_000_000


def test_the_keys_team_and_tags_count(proxy: Proxy, upstream: Upstream) -> None:
    forged = {"metadata": {"budget_team": "victim", "budget_tags": ["victim"]}, "tags": ["victim"]}
    answer = proxy.post("sk-tagged-passers-pat", "/priced/chat/completions", {**BODY, **forged})
    assert answer.status_code == 200, answer.text
    assert proxy.calm("pat", 1) == WORTH
    assert proxy.subjects("team") == {"passers": WORTH}
    assert proxy.subjects("tag") == dict.fromkeys(("of-key", "of-team", "of-both"), WORTH)
