"""The payer in the proxy: the authenticated caller, whatever the request says about itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.proxy.desk import MASTER, MESSAGES, WORTH, Proxy, deployment
from tests.upstream import Upstream

BODY = {"model": "chat", "messages": MESSAGES, "max_tokens": 1000}
FORGED_AUTH = {"user_id": "victim", "api_key": "sk-user-victim", "token": "victim"}

BODIES: dict[str, dict[str, Any]] = {
    "user": {"user": "victim"},
    "metadata": {"metadata": {"budget_user": "victim"}},
    "litellm_metadata": {"litellm_metadata": {"budget_user": "victim"}},
    "metadata as text": {"metadata": '{"budget_user": "victim", "user_api_key_user_id": "victim"}'},
    "litellm_metadata as text": {"litellm_metadata": '{"budget_user": "victim", "user_api_key_user_id": "victim"}'},
    "the proxy's names in metadata": {
        "metadata": {"user_api_key_user_id": "victim", "user_api_key": "victim", "user_api_key_auth": FORGED_AUTH}
    },
    "the proxy's names in litellm_metadata": {
        "litellm_metadata": {
            "user_api_key_user_id": "victim",
            "user_api_key": "victim",
            "user_api_key_auth": FORGED_AUTH,
        }
    },
    "the proxy's names in the body": {
        "user_api_key_user_id": "victim",
        "user_api_key_dict": FORGED_AUTH,
        "user_id": "victim",
    },
    "extra_body": {"extra_body": {"user": "victim", "metadata": {"budget_user": "victim"}}},
    "the request's own record": {
        "proxy_server_request": {"body": {"user": "victim"}},
        "litellm_params": {"user": "victim"},
    },
}
HEADERS = {
    "x_litellm_user_id": "victim",
    "x_litellm_end_user_id": "victim",
    "x_litellm_customer_id": "victim",
    "x_litellm_call_id": "victim",
    "x_litellm_spend_logs_metadata": '{"budget_user": "victim", "user_api_key_user_id": "victim"}',
    "x_litellm_metadata": '{"budget_user": "victim"}',
    "x_openwebui_user_id": "victim",
}


@pytest.mark.parametrize("name", BODIES)
def test_no_body_names_the_payer(proxy: Proxy, upstream: Upstream, name: str) -> None:
    payer = f"by {name}".replace(" ", "_")
    answer = proxy.post(f"sk-user-{payer}", "/v1/chat/completions", {**BODY, **BODIES[name]})
    assert answer.status_code == 200, answer.text
    assert proxy.calm(payer, 1) == WORTH
    assert proxy.state("victim") is None


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_names_the_payer(proxy: Proxy, upstream: Upstream, name: str) -> None:
    answer = proxy.post(f"sk-user-{name}", "/v1/chat/completions", BODY, **{name: HEADERS[name]})
    assert answer.status_code == 200, answer.text
    assert proxy.calm(name, 1) == WORTH
    assert proxy.state("victim") is None


def test_no_body_makes_a_call_cheaper(proxy: Proxy, upstream: Upstream) -> None:
    """The proxy itself rejects prices at the body's top level."""
    info = {"model_info": {"id": "mine", "input_cost_per_token": 0, "output_cost_per_token": 0}}
    body = {**BODY, "metadata": info, "litellm_metadata": info, "mock_response": "hi"}
    answer = proxy.post("sk-user-cheat", "/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    assert proxy.calm("cheat", 1) == WORTH
    assert upstream.requests == 1


def test_a_key_without_a_user_pays_under_its_hash(proxy: Proxy, upstream: Upstream) -> None:
    key = "sk-key-alias"
    assert proxy.post(key, "/v1/chat/completions", {**BODY, "user": "victim"}).status_code == 200
    assert proxy.calm(hashlib.sha256(key.encode()).hexdigest(), 1) == WORTH
    assert proxy.state("alias") is None and proxy.state("victim") is None


def test_a_key_that_litellm_does_not_hash_is_hashed(proxy: Proxy, upstream: Upstream) -> None:
    key = "plain-secret"
    assert proxy.post(key, "/v1/chat/completions", BODY).status_code == 200
    assert proxy.calm(hashlib.sha256(key.encode()).hexdigest(), 1) == WORTH
    assert proxy.state(key) is None


def test_the_members_of_a_team_pay_for_themselves(proxy: Proxy, upstream: Upstream) -> None:
    assert proxy.post("sk-team-red-rosa", "/v1/chat/completions", BODY).status_code == 200
    assert proxy.calm("rosa", 1) == WORTH


FORGED: dict[str, Any] = {
    "budget_team": "victim",
    "budget_tags": ["victim"],
    "budget_run": "victim",
    "budget_class": "victim",
    "tags": ["victim"],
    "user_api_key_team_id": "victim",
}


@pytest.mark.parametrize("where", ["metadata", "litellm_metadata", "as text", "the body"])
def test_the_keys_team_and_tags_count_and_none_of_the_body(proxy: Proxy, upstream: Upstream, where: str) -> None:
    team = where.replace(" ", "_")
    before = proxy.subjects("tag")
    forged = {"as text": {"metadata": json.dumps(FORGED)}, "the body": FORGED}.get(where, {where: FORGED})
    answer = proxy.post(f"sk-tagged-{team}-ann_{team}", "/v1/chat/completions", {**BODY, **forged})
    assert answer.status_code == 200, answer.text
    assert proxy.calm(f"ann_{team}", 1) == WORTH
    assert proxy.subjects("team")[team] == WORTH
    after = proxy.subjects("tag")
    assert {tag: spent - before.get(tag, 0) for tag, spent in after.items()} == dict.fromkeys(
        ("of-key", "of-team", "of-both"), WORTH
    )
    assert "victim" not in proxy.subjects("team") and proxy.subjects("run") == {}


def test_who_is_nobody_pays_from_the_default_users_account(proxy: Proxy, upstream: Upstream) -> None:
    assert proxy.post("sk-nobody", "/v1/chat/completions", {**BODY, "user": "victim"}).status_code == 200
    assert proxy.calm("anonymous", 1) == WORTH
    assert proxy.state("victim") is None


def test_the_settings_cannot_put_the_request_first(start: Callable[..., Proxy], shared_upstream: Upstream) -> None:
    """With the master key. LiteLLM calls its user default_user_id."""
    shared_upstream.usage = shared_upstream.usage._replace(prompt=1000, completion=1000)
    own = start(
        {
            "model_list": [deployment("chat", "openai/gate-chat", shared_upstream.url, (0, 12_500))],
            "litellm_settings": {"callbacks": "litellm_budget_plugin.proxy.budget_callback"},
            "general_settings": {"master_key": MASTER},
        },
        user_from="metadata,user",
    )
    body = {**BODY, "user": "victim", "metadata": {"budget_user": "victim"}}
    assert own.post(MASTER, "/v1/chat/completions", body).status_code == 200
    assert own.calm("default_user_id", 1) == WORTH
    assert own.state("victim") is None
