"""The LiteLLM proxy of examples/open_webui, called like Open WebUI calls it: with one key, and with headers that name the user."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from tests.frameworks.framework import HELPER, MODEL, STREAM, Framework, Seen, Setup, Way, take
from tests.pages import ROOT

KEY = "sk-open-webui"
_BODY = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def headers(user: str) -> dict[str, str]:
    """Return the headers that Open WebUI sends with ENABLE_FORWARD_USER_INFO_HEADERS=true."""
    return {
        "Authorization": f"Bearer {KEY}",
        "X-OpenWebUI-User-Name": user.title(),
        "X-OpenWebUI-User-Id": f"id-of-{user}",
        "X-OpenWebUI-User-Email": user,
        "X-OpenWebUI-User-Role": "user",
    }


def _ways(setup: Setup) -> list[Way]:
    import httpx

    from tests.proxy.desk import Proxy

    example = ROOT / "examples" / "open_webui"
    config = yaml.safe_load((example / "config.yaml").read_text())
    variables = {"LITELLM_MASTER_KEY": KEY, "LITELLM_BUDGET_FILE": str(example / "budgets.toml")}
    proxy = Proxy(setup.folder, config, variables, default_limit="")
    setup.closing.callback(proxy.stop)
    client = setup.closing.enter_context(httpx.Client(base_url=proxy.url, timeout=60))

    def ask(user: str) -> Any:
        answer = client.post("/v1/chat/completions", json=_BODY, headers=headers(user))
        if answer.status_code == 200:
            return answer.json()
        error = answer.json()["error"]
        return Seen(f"HTTP {answer.status_code}, `{error['type']}`")

    def stream(user: str, most: int | None) -> Any:
        asked: Any = {"json": {**_BODY, "stream": True}, "headers": headers(user)}
        with client.stream("POST", "/v1/chat/completions", **asked) as answer:
            if answer.status_code == 200:
                return take(answer.iter_lines(), most)
            error = json.loads(answer.read())["error"]
            return Seen(f"HTTP {answer.status_code}, `{error['type']}`, before the first byte")

    def at_once(users: list[str]) -> list[Any]:
        with ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(ask, users))

    crowd = [f"crowd-{number % 10}@example.com" for number in range(40)]
    served = [isinstance(answer, dict) for answer in at_once(crowd)]
    assert all(served), f"{served.count(False)} requests were not served"
    for user in set(crowd):
        assert proxy.usage(user).calls == 4, f"requests at once are mixed up: {proxy.subjects('user')}"
    unnamed = client.post("/v1/chat/completions", json=_BODY, headers={"Authorization": f"Bearer {KEY}"})
    assert unnamed.status_code == 422 and "default_user_id" in unnamed.text, unnamed.text
    strange = client.post("/v1/chat/completions", json=_BODY, headers={**headers("eve"), "Authorization": "Bearer eve"})
    assert strange.status_code in (400, 401), strange.text
    return [
        Way("chat", ask, context=False),
        Way("chat, stream", stream, STREAM, context=False),
        Way("requests at once", lambda user: at_once([user] * 5)[0], HELPER, context=False),
    ]


FRAMEWORK = Framework(
    title="Open WebUI through the LiteLLM proxy",
    requires=("litellm[proxy]",),
    shown=("litellm",),
    named="the header `X-OpenWebUI-User-Email`",
    ways=_ways,
    in_process=False,
)
